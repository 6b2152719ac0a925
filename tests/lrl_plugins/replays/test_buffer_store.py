"""What is kept, what is drawn, and that a checkpoint brings all of it back."""

import io
import math
from collections import Counter
from itertools import permutations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from lrl_core.sampling import Sampling
from lrl_core.testing.toy import toy_prompts
from lrl_plugins.replays.buffer_store import Item, Memory, items_of, possible, reward_of, rollout_of

EOS = 9


def item(word, total=None, **more):
    """A word of letters as an episode that ended."""
    tokens = (*(ord(letter) - ord("a") for letter in word), EOS)
    return Item(tokens, (True,) * len(tokens), True, word, total, **more)


def kept(*items, size=50, distance=0.25):
    memory = Memory(size, distance, eos=EOS)
    for one in items:
        memory.add(0, one)
    return [(one.text, one.total) for one in memory.prompts[0]]


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        # one edit in eight letters: 1 < .25 * 8
        ([item("abcd", 1.0), item("abce", 2.0)], [("abce", 2.0)]),
        ([item("abcd", 1.0), item("abce", 0.5)], [("abcd", 1.0)]),
        ([item("abcd", 1.0), item("abce", 1.0)], [("abcd", 1.0)]),
        # two edits in eight letters are not fewer than two
        ([item("abcd", 1.0), item("abef", 2.0)], [("abcd", 1.0), ("abef", 2.0)]),
        # the end token is no letter: else 1 < .25 * 6
        ([item("ab", 1.0), item("ac", 2.0)], [("ab", 1.0), ("ac", 2.0)]),
        ([item("abcd", 1.0), item("abcde", 2.0)], [("abcde", 2.0)]),  # 1 < .25 * 9
        ([item("", 1.0), item("a", 2.0)], [("", 1.0), ("a", 2.0)]),
        # nearer to both than they are to each other, and better than both
        ([item("abcd", 1.0), item("abef", 2.0), item("abcf", 3.0)], [("abcf", 3.0)]),
        # worse than one of the two that it is near to: it goes, and they stay
        ([item("abcd", 1.0), item("abef", 3.0), item("abcf", 2.0)], [("abcd", 1.0), ("abef", 3.0)]),
        # the newest judgment of one and the same episode counts
        ([item("abcd", 1.0), item("xy", 5.0), item("abcd", 0.5)], [("xy", 5.0), ("abcd", 0.5)]),
    ],
)
def test_of_two_alike_the_better_one_stays(items, expected):
    assert kept(*items) == expected


def test_no_distance_drops_exact_copies_alone():
    items = [item("abcd", 1.0), item("abce", 2.0), item("abcd", 1.0)]
    assert kept(*items, distance=0.0) == [("abce", 2.0), ("abcd", 1.0)]


def test_a_full_prompt_loses_the_lowest_reward():
    items = [item(word, total) for word, total in (("a", 3.0), ("b", 1.0), ("c", 2.0), ("d", 0.0), ("e", 2.0))]
    assert kept(*items, size=2) == [("a", 3.0), ("e", 2.0)]


def test_without_rewards_the_newest_stay_and_near_copies_too():
    items = [item(word) for word in ("abcd", "abce", "abcd", "x", "y")]
    assert kept(*items, size=3) == [("abcd", None), ("x", None), ("y", None)]


def test_prompts_are_apart():
    memory = Memory(1, 0.25, eos=EOS)
    memory.add(3, item("abcd", 1.0))
    memory.add(4, item("abcd", 2.0))
    assert {group: [one.total for one in items] for group, items in memory.prompts.items()} == {3: [1.0], 4: [2.0]}


# Drawing

TOTALS = {"a": 0.0, "b": 1.0, "c": -0.5, "d": 2.0}


def stocked(totals):
    memory = Memory(50, 0.25, eos=EOS)
    for word, total in totals.items():
        memory.add(0, item(word, total))
    return memory


def chances(temperature):
    weights = np.array([1.0 if temperature is None else math.exp(total / temperature) for total in TOTALS.values()])
    return weights / weights.sum()


@pytest.mark.parametrize("temperature", [1.0, 2.0, None])
def test_one_is_drawn_in_proportion_to_its_reward(temperature):
    torch.manual_seed(0)
    memory = stocked(TOTALS)
    drawn = Counter(memory.draw(0, 1, temperature)[0].text for _ in range(4000))
    assert chisquare([drawn[word] for word in TOTALS], chances(temperature) * 4000).pvalue > 1e-3


def test_several_are_drawn_one_after_the_other_without_replacement():
    torch.manual_seed(0)
    memory = stocked(TOTALS)
    drawn = Counter(tuple(one.text for one in memory.draw(0, 2, 1.0)) for _ in range(4000))
    p = dict(zip(TOTALS, chances(1.0), strict=True))
    expected = {(one, other): p[one] * p[other] / (1 - p[one]) for one, other in permutations(TOTALS, 2)}
    counts = [drawn[pair] for pair in expected]
    assert sum(counts) == 4000
    assert chisquare(counts, np.array([*expected.values()]) * 4000).pvalue > 1e-3


def test_too_few_are_shown_again():
    torch.manual_seed(0)
    assert len(stocked(TOTALS).draw(0, 9, 1.0)) == 9
    assert sorted(one.text for one in stocked(TOTALS).draw(0, 4, 1.0)) == [*TOTALS]


def test_rewards_far_apart_can_all_be_drawn():
    memory = stocked({"a": 0.0, "b": -5e3, "c": -1e4})
    assert sorted(one.text for one in memory.draw(0, 3, 0.5)) == ["a", "b", "c"]


# There and back


def stored():
    judged = item("ab", -1.25, by_prefix=(-3.0, -2.0, -1.25, -1.25), parts={"fluency": 0.5})
    other = Item((0, 5, 1), (True, False, True), False, "a?b", -0.1, (-1.0, -2.0, -3.0, -0.1), {"fluency": 2.0})
    return judged, other


def test_state_survives_a_checkpoint():
    memory = Memory(50, 0.25, eos=EOS)
    for group, one in ((7, stored()[0]), (2, stored()[1]), (7, item("xyz")), (2, item("", 0.5))):
        memory.add(group, one)
    file = io.BytesIO()
    torch.save(memory.state(), file)
    file.seek(0)
    again = Memory(50, 0.25, eos=EOS)
    again.load(torch.load(file, weights_only=True))
    assert again.prompts == memory.prompts
    assert [*again.prompts] == [7, 2]
    empty = Memory(5, 0.0)
    empty.load(Memory(5, 0.0).state())
    assert empty.prompts == {}


def test_a_rollout_of_stored_episodes():
    items = stored()
    rollout = rollout_of(items, toy_prompts(2), Sampling(banned=(4,)), pad=8)
    assert rollout.tokens.tolist() == [[0, 1, EOS], [0, 5, 1]]
    assert rollout.action_mask.tolist() == [[True] * 3, [True, False, True]]
    assert rollout.terminated.tolist() == [True, False]
    assert rollout.logprobs.abs().sum() == 0
    assert rollout.texts == ("ab", "a?b")
    reward = reward_of(items, torch.device("cpu"))
    assert reward.total.tolist() == pytest.approx([-1.25, -0.1])
    assert reward.by_prefix[0].tolist() == [-3.0, -2.0, -1.25, -1.25]
    assert reward.parts["fluency"].tolist() == [0.5, 2.0]
    assert items_of(rollout, reward)[0] == (0, items[0])


def test_shorter_lines_are_filled_up():
    items = [item("", -1.0, by_prefix=(-1.0, -1.5)), stored()[0]]
    rollout = rollout_of(items, toy_prompts(2), Sampling(), pad=8)
    assert rollout.tokens.tolist() == [[EOS, 8, 8], [0, 1, EOS]]
    assert rollout.lengths.tolist() == [1, 3]
    reward = reward_of(items, torch.device("cpu"))
    assert reward.by_prefix[0].tolist() == [-1.0, -1.5, -1.5, -1.5]
    assert reward_of([item("a"), item("b")], torch.device("cpu")) is None
    assert reward_of([item("a", 1.0), items[0]], torch.device("cpu")).by_prefix is None


def test_what_could_have_been_drawn():
    items = [item("ab"), item("ad"), item("abc"), item("aba"), item("")]
    rollout = rollout_of(items, toy_prompts(5), Sampling(), pad=8)
    ways = {
        Sampling(): [True] * 5,
        Sampling(banned=(3,)): [True, False, True, True, True],
        Sampling(eos=EOS, limit=3): [True, True, False, False, True],
        Sampling(eos=EOS, no_repeat_ngram=1): [True, True, True, False, True],
        Sampling(eos=EOS, min_length=3): [True] * 5,
    }
    for sampling, expected in ways.items():
        assert possible(rollout, sampling).tolist() == expected
