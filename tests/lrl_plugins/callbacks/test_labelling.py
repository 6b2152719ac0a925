"""When questions are due, and how a scripted labeller answers."""

from collections import Counter

import pytest
import torch
from scipy.stats import chisquare

from lrl_plugins.callbacks.labelling import due, ranks_of


def answered(scores, answer="ranking", tie=0.0, temperature=0.0, seed=0):
    return ranks_of(scores, answer, tie, temperature, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("progress", "expected"), [(0, 100), (0.25, 275), (0.5, 400), (0.75, 475), (1, 500)]
)  # 100 + 400 (1 - (1 - t)^2)
def test_the_schedule_by_hand(progress, expected):
    assert due(100, 500, progress) == expected


def test_offline_asks_nothing_more():
    assert {due(300, 300, t / 10) for t in range(11)} == {300}


def test_a_ranking_puts_the_highest_score_first_and_gives_equal_ones_one_rank():
    assert answered([0.5, 2.0, -1.0, 0.5]) == (1, 0, 2, 1)
    assert answered([1.0, 0.9, 0.4, 0.35], tie=0.1) == (0, 0, 1, 1)


def test_the_best_is_the_highest_alone_and_among_equals_each_as_often():
    assert answered([0.5, 2.0, -1.0], "best") == (1, 0, 1)
    chosen = Counter(answered([1.0, 1.0, 0.0], "best", seed=seed) for seed in range(400))
    assert set(chosen) == {(0, 1, 1), (1, 0, 1)}
    assert chisquare(list(chosen.values())).pvalue > 1e-3


def test_who_cannot_judge_skips():
    assert answered([1.0, float("nan"), 0.0]) is None


def test_noisy_choices_have_the_frequencies_of_the_softmax():
    scores, temperature, count = [1.0, 0.0, -0.5, 0.5], 0.8, 4000
    wins = Counter(answered(scores, "best", temperature=temperature, seed=seed).index(0) for seed in range(count))
    expected = (torch.tensor(scores, dtype=torch.float64) / temperature).softmax(0) * count
    assert chisquare([wins[i] for i in range(4)], expected.tolist()).pvalue > 1e-3


def test_noisy_rankings_are_those_of_plackett_and_luce():
    scores, count = [1.0, 0.0, -0.5], 4000
    seen = Counter(answered(scores, temperature=1.0, seed=seed) for seed in range(count))
    strength = torch.tensor(scores, dtype=torch.float64).exp().tolist()
    expected = {}
    for first in range(3):
        for second in set(range(3)) - {first}:
            ranks = tuple(0 if i == first else 1 if i == second else 2 for i in range(3))
            left = sum(strength) - strength[first]
            expected[ranks] = count * strength[first] / sum(strength) * strength[second] / left
    assert set(seen) == set(expected)
    assert chisquare([seen[ranks] for ranks in expected], list(expected.values())).pvalue > 1e-3


def test_one_seed_draws_alike():
    assert answered([0.1, 0.2, 0.3, 0.4], temperature=1.0, seed=5) == answered(
        [0.1, 0.2, 0.3, 0.4], temperature=1.0, seed=5
    )
