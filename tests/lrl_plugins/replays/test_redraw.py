"""Prompts whose samples all earned the same are drawn again, and nothing else is."""

import math
from dataclasses import replace

import pytest
import torch

from lrl_core.masks import length_mask
from lrl_core.sampling import Sampling
from lrl_core.testing.parts import check_replay
from lrl_core.testing.toy import ToySampler, toy_prompts, tree_world
from lrl_core.types import Advantage, Experience, RewardSignal, Rollout
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.replays import redraw
from lrl_plugins.replays.redraw import Redraw, equal_groups

GROUPS = (11, 12, 13, 14)


class Draws:
    """Two episodes per prompt; their rewards are read from a script, call by call. Tokens tell the call."""

    def __init__(self, *script):
        self.script, self.asked = list(script), []

    def __call__(self, groups=None):
        self.asked.append(groups)
        rewards = self.script[len(self.asked) - 1]
        chosen = [group for group in GROUPS if groups is None or group in groups]
        group = torch.tensor(chosen).repeat_interleave(2)
        width = 1 + len(self.asked)  # every call has another width
        tokens = torch.full((len(group), width), len(self.asked))
        rollout = Rollout(
            prompts=replace(toy_prompts(len(group)), group=group),
            tokens=tokens,
            lengths=torch.full((len(group),), width),
            action_mask=torch.ones_like(tokens, dtype=torch.bool),
            logprobs=torch.zeros(tokens.shape),
            terminated=torch.ones(len(group), dtype=torch.bool),
            sampling=Sampling(),
        )
        total = torch.tensor([reward for name in chosen for reward in rewards[name]])
        human = rollout.select(torch.arange(0, len(group), 2))
        human = replace(human, action_mask=length_mask(human.lengths, width), sampling=None)
        return Experience(rollout, RewardSignal(total), Advantage(total[:, None].expand(tokens.shape)), human)


FIRST = {11: (1.0, 0.0), 12: (1.0, 1.0), 13: (0.0, 0.0), 14: (0.0, 1.0)}


def run(replay, *script):
    draws = Draws(*script)
    (experience,) = replay.batches(draws, lambda: None)
    return experience, draws.asked


def by_group(experience):
    """Which call drew each prompt, and what its samples earned."""
    rollout = experience.rollout
    columns = (rollout.prompts.group, rollout.tokens[:, 0], experience.reward.total)
    found = {}
    for group, call, reward in zip(*(column.tolist() for column in columns), strict=True):
        found.setdefault(group, []).append((call, reward))
    return found


def test_conforms():
    check_replay(Redraw)


def test_equal_prompts_are_drawn_again_until_they_differ():
    experience, asked = run(Redraw(rounds=5), FIRST, {12: (0.0, 1.0), 13: (1.0, 1.0)}, {13: (0.0, 1.0)})
    assert asked == [None, {12, 13}, {13}]
    assert by_group(experience) == {
        11: [(1, 1.0), (1, 0.0)],
        12: [(2, 0.0), (2, 1.0)],
        13: [(3, 0.0), (3, 1.0)],
        14: [(1, 0.0), (1, 1.0)],
    }
    assert sorted(experience.expert.prompts.group.tolist()) == [11, 12, 13, 14]
    assert experience.rollout.tokens.shape == experience.advantage.value.shape == (8, 4)
    assert (experience.rollout.lengths == experience.rollout.action_mask.sum(1)).all()


def test_rounds_are_bounded_and_what_stays_equal_is_kept_or_dropped():
    again = {12: (1.0, 1.0), 13: (0.0, 0.5)}
    kept, asked = run(Redraw(rounds=1), FIRST, again)
    assert asked == [None, {12, 13}]
    assert set(by_group(kept)) == set(GROUPS)
    dropped, _ = run(Redraw(rounds=1, drop=True), FIRST, again)
    assert set(by_group(dropped)) == {11, 13, 14}
    assert sorted(dropped.expert.prompts.group.tolist()) == [11, 13, 14]


def test_one_prompt_stays_where_all_are_equal():
    experience, asked = run(Redraw(rounds=0, drop=True), dict.fromkeys(GROUPS, (1.0, 1.0)))
    assert asked == [None]
    assert set(by_group(experience)) == {11}


def test_all_prompts_can_be_replaced():
    experience, asked = run(Redraw(), dict.fromkeys(GROUPS, (1.0, 1.0)), dict.fromkeys(GROUPS, (0.0, 1.0)))
    assert asked == [None, set(GROUPS)]
    assert {call for rows in by_group(experience).values() for call, _ in rows} == {2}


def test_nothing_to_redraw_asks_for_nothing():
    assert run(Redraw(), dict.fromkeys(GROUPS, (0.0, 1.0)))[1] == [None]


def test_unjudged_samples_cannot_be_compared():
    rewards = {11: (1.0, math.nan), 12: (math.nan, math.nan), 13: (1.0, 1.0), 14: (0.0, 1.0)}
    assert equal_groups(Draws(rewards)()) == {11, 12, 13}


def test_a_rank_without_equal_prompts_collects_with_the_others_and_keeps_its_own(monkeypatch):
    """The other rank has two prompts to redraw in the first round and none in the second."""
    elsewhere = iter([2, 0])
    monkeypatch.setattr(redraw, "sum_over_ranks", lambda here: here + next(elsewhere))
    good = dict.fromkeys(GROUPS, (0.0, 1.0))
    experience, asked = run(Redraw(), good, {11: (5.0, 7.0)})
    assert asked == [None, {11}]
    assert {call for rows in by_group(experience).values() for call, _ in rows} == {1}


def test_one_sample_per_prompt_is_refused():
    policy, reward = tree_world()
    with pytest.raises(ValueError, match="draws 1 sample per prompt; expected at least 2"):
        Redraw().check(ToySampler(policy, Sample(max_length=2), reward))
    Redraw().check(ToySampler(policy, Sample(max_length=2, samples=2), reward))


def test_refuses_a_negative_number_of_rounds():
    with pytest.raises(ValueError, match="rounds is -1"):
        Redraw(rounds=-1)
