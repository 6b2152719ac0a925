"""A warning after many steps in which most prompts teach nothing."""

import math
import warnings
from types import SimpleNamespace

import pytest

from lrl_core.testing.toy import TableReward
from lrl_plugins.callbacks.zero_variance import ZeroVariance


def test_warns_after_that_many_steps_in_a_row(short_run):
    with pytest.warns(UserWarning, match="for 4 steps all samples of more than 50% of the prompts") as caught:
        short_run(ZeroVariance(steps=4), epochs=3, reward=TableReward(lambda tokens: 1.0))
    assert len([warning for warning in caught if "ZeroVariance" in str(warning.message)]) == 1


@pytest.mark.parametrize(
    "pays",
    [lambda tokens: float(hash(tokens)), lambda tokens: float("nan"), lambda tokens: float(tokens.count(0))],
    ids=["different", "unjudged", "learnable"],
)
def test_says_nothing_otherwise(short_run, pays):
    watch = ZeroVariance(steps=3, share=0.9)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="ZeroVariance")
        short_run(watch, epochs=2, reward=TableReward(pays))
    assert watch.in_a_row < 3


def test_counts_only_steps_in_a_row_and_skips_those_of_which_nothing_is_known():
    watch, counts = ZeroVariance(share=0.5, steps=9), []
    for share in (0.6, 1.0, math.nan, 0.7, 0.5, 0.9):
        watch.on_train_batch_end(SimpleNamespace(callback_metrics={"groups/zero_variance": share}), None, None, None, 0)
        counts.append(watch.in_a_row)
    assert counts == [1, 2, 2, 3, 0, 1]


def test_a_resumed_run_goes_on_counting():
    watch = ZeroVariance()
    watch.load_state_dict({"in_a_row": 7})
    assert watch.state_dict() == {"in_a_row": 7}


def test_refuses_no_steps():
    with pytest.raises(ValueError, match="steps >= 1"):
        ZeroVariance(steps=0)
