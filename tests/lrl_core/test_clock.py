from pathlib import Path

import pytest
import torch

from lrl_core import clock
from lrl_core.clock import Clock, peak_memory


@pytest.fixture
def ticking(monkeypatch):
    """Every look at the time is a second after the last; each phase looks twice."""
    seconds = iter(range(1000))
    monkeypatch.setattr(clock.time, "perf_counter", lambda: float(next(seconds)))
    return Clock()


def test_phases_add_up_and_know_what_was_within(ticking):
    ticking.restart()
    with ticking.phase("step"):  # 0
        with ticking.phase("rollout"):  # 1 to 2
            pass
        with ticking.phase("baseline"), ticking.phase("rollout"):  # 3, 4 to 5, 6
            pass
    assert ticking.seconds == {"rollout": 2.0, "baseline": 3.0, "step": 7.0}
    assert ticking.own == {"rollout": 2.0, "baseline": 2.0, "step": 3.0}
    assert sum(ticking.own.values()) == ticking.seconds["step"]


def test_each_step_begins_at_nothing(ticking):
    with ticking.phase("step"):
        pass
    ticking.restart()
    with ticking.phase("step"):
        pass
    assert ticking.seconds == {"step": 1.0}


def test_a_phase_that_fails_is_not_counted_and_spoils_nothing(ticking):
    with pytest.raises(ValueError, match="away"), ticking.phase("step"), ticking.phase("reward"):
        raise ValueError("away")
    assert ticking.seconds == {}
    with ticking.phase("step"):
        pass
    assert ticking.own == {"step": 1.0}


def test_an_exact_clock_names_its_phases_in_a_trace():
    exact = Clock()
    exact.exact = True
    with torch.profiler.profile() as profiler, exact.phase("reward"):
        torch.ones(3).sum()
    assert "lrl/reward" in {event.key for event in profiler.key_averages()}


def test_peak_memory_is_that_of_the_process():
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("no /proc to compare with")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    assert peak_memory(torch.device("cpu")) == pytest.approx(int(line.split()[1]) / 1024, abs=4)
