"""The made-up world: what its critic likes, how often it errs, and that metrics tell good answers from bad."""

import math

import pytest

from lrl_plugins.tasks.preferences.made_up import MadeUpPreferences, worth, worths
from lrl_plugins.tasks.preferences.metrics import AnswerMetrics


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("wonderful", 2.0),
        ("very wonderful", 3.0),
        ("rather awful", -1.0),
        ("moving and rather dull", (1.5 - 0.75) / 2),
        ("wonderful wonderful wonderful", 2.0),  # repetition does not pay
        ("very much wonderful", 2.0),  # an adverb strengthens the next word alone
        ("with actors", 0.0),
        ("", 0.0),
    ],
)
def test_worth(text, expected):
    assert worth(text) == pytest.approx(expected)
    assert worths([text, "odd"]) == [pytest.approx(expected), -0.5]


def test_without_noise_the_ranks_are_those_of_worth():
    for row in MadeUpPreferences(train=50, val=1, test=1, noise=0.0).splits()["train"]:
        ordered = [worth(row.candidates[i]) for i in row.order]
        assert ordered == sorted(ordered, reverse=True)
        assert sorted(row.ranks) == [0, 1, 2, 3]
        assert len(set(row.candidates)) == 4


def test_pairs_are_ranked_as_bradley_and_terry_say():
    """The log-likelihood of the rankings is least surprising at the noise that made them, and near its expectation."""
    rows = MadeUpPreferences(train=2000, val=1, test=1, candidates=2, noise=0.5).splits()["train"]
    margins = [worth(row.best[0]) - worth(row.candidates[row.order[1]]) for row in rows]

    def surprise(noise):
        return sum(math.log1p(math.exp(-margin / noise)) for margin in margins) / len(margins)

    assert surprise(0.5) < min(surprise(0.4), surprise(0.65))
    right = sum(margin > 0 for margin in margins) / sum(margin != 0 for margin in margins)
    expected = sum(1 / (1 + math.exp(-abs(margin) / 0.5)) for margin in margins if margin) / sum(map(bool, margins))
    assert right == pytest.approx(expected, abs=0.03)


def test_no_prompt_is_in_two_splits_and_seeds_differ():
    splits = MadeUpPreferences(train=300, val=50, test=50).splits()
    assert len({row.prompt for own in splits.values() for row in own}) == 400
    assert splits == MadeUpPreferences(train=300, val=50, test=50).splits()
    assert splits["val"] == MadeUpPreferences(train=3, val=50, test=50).splits()["val"]
    assert splits["val"] != MadeUpPreferences(train=300, val=50, test=50, seed=1).splits()["val"]


def test_the_place_of_an_answer_says_nothing_of_its_rank():
    rows = MadeUpPreferences(train=400, val=1, test=1).splits()["train"]
    first = [row.ranks[0] for row in rows]
    assert all(60 <= first.count(rank) <= 140 for rank in range(4))


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match=r"MadeUpPreferences: got candidates 0 and noise 0\.5"):
        MadeUpPreferences(candidates=0)
    with pytest.raises(ValueError, match="noise -1"):
        MadeUpPreferences(noise=-1)


def test_metrics_by_hand():
    metric = AnswerMetrics(worth)
    metric.update(["a", "b"], ["very wonderful", "rather odd film"], [(), ()])
    metric.update(["a"], ["ignored: the id was there"], [()])
    assert {name: value.item() for name, value in metric.compute().items()} == {
        "words": 2.5,
        "worth": pytest.approx((3.0 - 0.25) / 2),
        "distinct_1": 1.0,
        "distinct_2": 1.0,
        "distinct_3": 1.0,
    }


def test_repeating_lowers_distinct_and_unknown_worth_is_left_out():
    metric = AnswerMetrics(lambda text: None)
    metric.update(["a", "b"], ["good good", "good"], [(), ()])
    assert {name: value.item() for name, value in metric.compute().items()} == {
        "words": 1.5,
        "distinct_1": pytest.approx(1 / 3),
        "distinct_2": 1.0,
    }
