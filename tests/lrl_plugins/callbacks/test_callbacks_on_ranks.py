"""Two real processes: callbacks count over both, and a rank without equal prompts redraws in step with the other."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("two_ranks.py")


def run_in_processes(folder, ranks):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PL_", "LOCAL_RANK", "NODE_RANK"))}
    command = [sys.executable, str(SCRIPT), str(folder), str(ranks)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"{ranks}-{rank}.pt") for rank in range(ranks)]


def test_numbers_are_of_all_ranks(tmp_path):
    runpy.run_path(str(SCRIPT))["main"](str(tmp_path), 1)
    one = torch.load(tmp_path / "1-0.pt")
    first, second = run_in_processes(tmp_path, 2)
    # A step draws 18 episodes; then the first rank redraws its 9, and the second 3 that it does not keep.
    assert first["steps"] == second["steps"] == 3
    assert first["spent"] == second["spent"]
    assert first["spent"]["rollouts"] == 3 * (18 + 9 + 3)
    assert first["parameters"].equal(second["parameters"])
    assert first["before"] == second["before"] == pytest.approx(one["before"], rel=1e-5)
    assert first["now"] == second["now"]
    assert first["alarm"] == second["alarm"]
    assert "val/exact" in first["alarm"]
    # The first rank asks, about its own episodes; the second only knows how far it is.
    assert first["asked"] == second["asked"] == 4
    assert len(first["carried"]["judgments"]) == 4
    assert second["carried"] is None
