"""Two real processes with gloo: one model, different episodes, the update of one process with the whole batch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("two_processes.py")


def run(folder, ranks, method):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PL_", "LOCAL_RANK", "NODE_RANK"))}
    command = [sys.executable, str(SCRIPT), str(folder), str(ranks), method]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"{method}-{ranks}-{rank}.pt") for rank in range(ranks)]


@pytest.fixture(scope="module")
def reinforced(tmp_path_factory):
    return run(tmp_path_factory.mktemp("rl"), 2, "rl")


def test_both_ranks_end_with_the_same_parameters(reinforced):
    assert reinforced[0]["parameters"].equal(reinforced[1]["parameters"])


def test_ranks_draw_different_samples_of_different_prompts(reinforced):
    assert reinforced[0]["tokens"] != reinforced[1]["tokens"]
    assert not set(reinforced[0]["prompts"]) & set(reinforced[1]["prompts"])


def test_two_ranks_make_the_update_of_one(tmp_path):
    one, two = run(tmp_path, 1, "ml"), run(tmp_path, 2, "ml")
    assert torch.allclose(one[0]["parameters"], two[0]["parameters"], atol=1e-5)
