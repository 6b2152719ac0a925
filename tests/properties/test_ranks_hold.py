"""Neither micro-batches nor ranks change the update, for every registered objective in every aggregation."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from objectives_by_aggregation import ways

SCRIPT = Path(__file__).with_name("scripted.py")
BUDGETS = {"2 x 4": 48, "8 x 1": 1}
"""Padded tokens that make 2 micro-batches of 4 prompts, or 8 of 1."""


def run(folder, ranks, budget=None):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PL_", "LOCAL_RANK", "NODE_RANK"))}
    command = [sys.executable, str(SCRIPT), str(folder), str(ranks), *([str(budget)] if budget else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"{ranks}-{budget}-{rank}.pt") for rank in range(ranks)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run(tmp_path_factory.mktemp("whole"), 1)[0]


@pytest.fixture(scope="module")
def in_parts(tmp_path_factory):
    return {name: run(tmp_path_factory.mktemp("parts"), 1, budget)[0] for name, budget in BUDGETS.items()}


@pytest.fixture(scope="module")
def on_two_ranks(tmp_path_factory):
    return run(tmp_path_factory.mktemp("ranks"), 2)


@pytest.mark.parametrize("way", ways())
@pytest.mark.parametrize("parts", BUDGETS)
def test_micro_batches_change_no_update(parts, way, whole, in_parts):
    assert torch.allclose(in_parts[parts][way], whole[way], atol=1e-5)


@pytest.mark.parametrize("way", ways())
def test_two_processes_make_the_update_of_one(way, whole, on_two_ranks):
    assert on_two_ranks[0][way].equal(on_two_ranks[1][way])
    assert torch.allclose(on_two_ranks[0][way], whole[way], atol=1e-5)


def test_the_objectives_did_learn(whole):
    start = whole["CrossEntropy"].new_zeros(())
    assert all(parameters.abs().sum() > start for parameters in whole.values())
    assert not whole["Reinforce"].equal(whole["CrossEntropy"])
