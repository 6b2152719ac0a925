import json
import re

import pytest
import torch

from lrl_core.reference import Reference
from lrl_plugins.baselines.self_critical import SelfCritical
from lrl_plugins.callbacks.profile import PHASES, Profile, phase_table
from lrl_plugins.objectives.ppo import PPO


def shares(text):
    """The shares of the phases, by name."""
    found = {name: re.search(rf"{name} .*?([\d.]+)%", text) for name in PHASES.values()}
    return {name: float(line[1]) for name, line in found.items() if line}


def test_a_run_says_where_its_steps_went(short_run, tmp_path, capsys):
    parts = {"baseline": SelfCritical(), "objective": PPO(kl_weight=0.1), "reference": Reference()}
    module, _ = short_run(Profile(first=2, steps=2, rows=4, trace=True), **parts)
    text = (tmp_path / "run" / "profile.txt").read_text()
    assert "training steps 2 to 3: " in text
    assert set(shares(text)) == set(PHASES.values())
    assert sum(shares(text).values()) == pytest.approx(100, abs=0.4)
    assert shares(text)[PHASES["rollout"]] > 5
    operators = text.split("operators by their own time, all threads")[1]
    times = [float(line.split("│")[3]) for line in operators.splitlines() if line.count("│") == 5]
    assert len(times) == 4
    assert times == sorted(times, reverse=True)
    assert PHASES["rollout"] in capsys.readouterr().out
    trace = json.loads((tmp_path / "run" / "trace.json").read_text())
    labels = [event["name"] for event in trace["traceEvents"] if event.get("name") == "lrl/loss"]
    assert len(labels) >= 2
    assert not module.clock.exact


def test_being_looked_at_changes_no_weight(short_run):
    looked, _ = short_run(Profile(first=1, steps=2))
    alone, _ = short_run()
    for name, weight in alone.policy.state_dict().items():
        assert weight.equal(looked.policy.state_dict()[name])


def test_a_run_that_ends_before_says_what_was_seen(short_run, tmp_path):
    short_run(Profile(first=1, steps=1000))
    assert re.search(r"training steps 1 to (6|[1-9]\d*): ", (tmp_path / "run" / "profile.txt").read_text())


def test_a_run_that_never_comes_so_far_writes_nothing(short_run, tmp_path):
    short_run(Profile(first=1000))
    assert not (tmp_path / "run" / "profile.txt").exists()


def test_a_run_that_fails_leaves_no_profiler_on(short_run):
    class Fails(SelfCritical):
        def advantage(self, rollout, reward, sampler):
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        short_run(Profile(first=1), baseline=Fails())
    with torch.profiler.profile():  # a second one beside it would be refused
        pass


def test_shares_are_of_the_time_without_the_phases_within():
    table = phase_table({"rollout": 0.6, "loss": 0.3, "step": 0.1}, steps=2, first=5)
    assert table.title == "training steps 5 to 6: 500.0 ms each, under the profiler"
    cells = [list(column.cells) for column in table.columns]
    assert cells[1:] == [["300.0", "150.0", "50.0"], ["60.0%", "30.0%", "10.0%"]]


@pytest.mark.parametrize("wrong", [{"first": 0}, {"steps": 0}, {"rows": 0}])
def test_numbers_below_1_are_refused(wrong):
    with pytest.raises(ValueError, match="expected numbers >= 1"):
        Profile(**wrong)
