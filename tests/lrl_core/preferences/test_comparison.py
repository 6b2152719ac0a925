"""Comparisons: what a batch of ranked answers says, and how it is cut into parts."""

from dataclasses import replace

import pytest
import torch

from lrl_core.preferences.comparison import Comparison, Comparisons
from lrl_core.testing.toy import toy_prompts


def ranked_prompts():
    """Two prompts, the first with three answers, two of them tied."""
    return replace(
        toy_prompts(5),
        group=torch.tensor([4, 4, 4, 9, 9]),
        references=(("good",), ("bad",), ("worse",), ("yes",), ("no",)),
        features={"rank": torch.tensor([0, 1, 1, 1, 0])},
        examples=tuple({"id": name, "prompt": f"about {name}"} for name in "aaabb"),
    )


def test_a_batch_says_who_was_liked_better():
    first, second = Comparisons.of(ranked_prompts()).items
    assert first == Comparison("about a", ("good", "bad", "worse"), (0, 1, 1), "a")
    assert second == Comparison("about b", ("yes", "no"), (1, 0), "b")


def test_other_batches_are_refused():
    with pytest.raises(ValueError, match=r"got prompts with the features \[\]; expected `rank`"):
        Comparisons.of(toy_prompts(2))


@pytest.mark.parametrize("ranks", [(0,), (0, 1, 2), (0, -1)])
def test_a_rank_for_each_candidate(ranks):
    with pytest.raises(ValueError, match="expected at least two candidates and one rank >= 0 for each"):
        Comparison("p", ("a", "b"), ranks, "7")


def test_parts_hold_whole_comparisons_within_the_budget():
    long = Comparison("one two three", ("four five", "six seven"), (0, 1))
    short = Comparison("one", ("two", "three"), (0, 1))
    every = Comparisons((long, short, long))
    assert every.split(None) == [every]
    assert every.split(1) == [Comparisons((short,)), Comparisons((long,)), Comparisons((long,))]
    assert every.split(20) == [Comparisons((short, long)), Comparisons((long,))]
    assert len(every) == 3
