"""Continuations: exact against enumeration, unbiased, and how much each token is credited with, by hand."""

from dataclasses import replace

import pytest
import torch

from lrl_core.interfaces import Reward, TaskFacts, bind_all
from lrl_core.masks import length_mask
from lrl_core.testing.exact import gradient_moments
from lrl_core.testing.parts import bigram_world, toy_episodes
from lrl_core.testing.toy import (
    TREE_GRADIENT,
    TREE_REWARD,
    TREE_TABLE,
    TableReward,
    ToySampler,
    ToyTokenizer,
    every_episode,
    toy_facts,
    toy_prompts,
    tree_world,
)
from lrl_core.types import RewardSignal, Rollout
from lrl_plugins.baselines.monte_carlo import MonteCarlo
from lrl_plugins.decoders.beam_search import BeamSearch
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.objectives.reinforce import Reinforce
from lrl_plugins.rewards.diversity import SelfBLEU


def decoder(vocabulary=3, length=2):
    made = Sample(max_length=length)
    bind_all(made, toy_facts(ToyTokenizer(vocabulary)))
    return made


class Enumerated(ToySampler):
    """Pays every continuation the exact mean of all of them, or that of number `one` in its place.

    `one` counts with its probability times the number of continuations, so that the mean over all of them is exact.
    """

    def __init__(self, one=None):
        policy, reward = tree_world()
        super().__init__(policy, decoder(), reward)
        self.one = one

    def complete(self, prompts, openings, policy=None):
        everything, probability = every_episode(self.policy, 2)
        paid = self.reward.score(everything).total
        totals = []
        for opening in openings:
            fits = (everything.tokens[:, : len(opening)] == torch.tensor(opening)).all(1)
            shares, earned = probability[fits] / probability[fits].sum(), paid[fits]
            alone = None if self.one is None else shares[self.one] * len(shares) * earned[self.one]
            totals.append((shares * earned).sum() if alone is None else alone)
        return everything.select(torch.zeros(len(openings), dtype=torch.long)), RewardSignal(torch.stack(totals))


class Scripted(ToySampler):
    """Continuations of n tokens earn what a function says of n, or increments; remembers what it was asked."""

    def __init__(self, worth=lambda n: 10.0 * n, increments=None, delayed=None):
        policy, reward = tree_world()
        super().__init__(policy, decoder(), reward)
        self.worth, self.increments, self.other, self.asked = worth, increments, delayed, []

    @property
    def delayed(self):
        return self.other

    def complete(self, prompts, openings, policy=None):
        self.asked.append(([tuple(opening) for opening in openings], policy))
        rollout, _ = line(len(openings))
        if self.increments is None:
            return rollout, RewardSignal(torch.tensor([self.worth(len(opening)) for opening in openings]))
        by_token = torch.stack([self.increments(len(opening)) for opening in openings])
        return rollout, RewardSignal(by_token.sum(1), by_token)


def line(rows=1, length=5):
    lengths = torch.full((rows,), length)
    rollout = Rollout(
        prompts=toy_prompts(rows),
        tokens=torch.arange(length).expand(rows, length),
        lengths=lengths,
        action_mask=length_mask(lengths, length),
        logprobs=torch.zeros(rows, length),
        terminated=torch.zeros(rows, dtype=torch.bool),
    )
    return rollout, RewardSignal(torch.full((rows,), 100.0))


def test_enumerated_continuations_give_the_exact_q():
    sampler = Enumerated()
    everything, _ = every_episode(sampler.policy, 2)
    got = MonteCarlo(samples=1).advantage(everything, sampler.reward.score(everything), sampler).value
    table, paid = torch.tensor(TREE_TABLE, dtype=torch.float64), torch.tensor(TREE_REWARD, dtype=torch.float64)
    worth = (table[1:].softmax(1) * paid).sum(1)  # of each first token
    expected = [[float(worth[a]), TREE_REWARD[a][b]] for a in range(3) for b in range(3)]
    assert torch.allclose(got, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("compare", ["nothing", "before"])
def test_the_expected_gradient_is_that_of_the_expected_reward(compare):
    sampler = Enumerated()
    baseline = MonteCarlo(samples=1, compare=compare)
    mean, variance = gradient_moments(sampler.policy, sampler.reward, baseline, Reinforce(), sampler, samples=1)
    assert torch.allclose(mean, -torch.tensor(TREE_GRADIENT).double(), atol=2e-6)
    plain = gradient_moments(sampler.policy, sampler.reward, MonteCarlo(stride=2), Reinforce(), sampler, samples=1)[1]
    assert variance < plain  # than with the whole reward on every token


def test_one_continuation_is_unbiased():
    """The mean over the three continuations of every first token, each as probable as the policy has it."""
    means = []
    for one in range(3):
        sampler = Enumerated(one)
        baseline = MonteCarlo(samples=1)
        means.append(gradient_moments(sampler.policy, sampler.reward, baseline, Reinforce(), sampler, samples=1)[0])
    assert not torch.allclose(means[0], means[1], atol=1e-2)
    assert torch.allclose(sum(means) / 3, -torch.tensor(TREE_GRADIENT).double(), atol=2e-6)


def test_a_constant_reward_has_no_expected_gradient():
    policy, _ = tree_world()
    sampler = ToySampler(policy, decoder(), TableReward(lambda tokens: 0.5))
    for compare in ("nothing", "before"):
        baseline = MonteCarlo(samples=2, compare=compare)
        mean, variance = gradient_moments(policy, sampler.reward, baseline, Reinforce(), sampler, samples=1)
        assert mean.abs().max() < 1e-9
        assert (variance > 1e-3) == (compare == "nothing")


def test_played_continuations_come_near_the_exact_q():
    policy, reward = tree_world()
    everything, _ = every_episode(policy, 2)
    signal = reward.score(everything)
    exact = MonteCarlo(samples=1).advantage(everything, signal, Enumerated()).value
    torch.manual_seed(0)
    got = MonteCarlo(samples=500).advantage(everything, signal, ToySampler(policy, decoder(), reward)).value
    assert got[:, 1].equal(signal.total)
    assert (got[:, 0] - exact[:, 0]).abs().max() < 5 * 1.2 / 500**0.5  # the reward's spread is at most 1.2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, [10, 20, 30, 40, 100]),
        ({"compare": "before"}, [10, 10, 10, 10, 60]),
        ({"stride": 2}, [20, 20, 40, 40, 100]),
        ({"stride": 2, "compare": "before"}, [20, 20, 20, 20, 60]),
        ({"stride": 9}, [100, 100, 100, 100, 100]),
        ({"stride": 9, "compare": "before"}, [100, 100, 100, 100, 100]),
    ],
)
def test_which_estimate_credits_which_token(arguments, expected):
    got = MonteCarlo(samples=2, **arguments).advantage(*line(), Scripted())
    assert got.value.tolist() == [expected]


def test_increments_are_paid_once():
    """Of a continuation only what it earned after its opening counts; of the episode what it earned since then."""
    rollout, _ = line()
    own = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]])
    sampler = Scripted(increments=lambda n: torch.where(torch.arange(5) < n, 50.0, 0.0) + 7.0 * (torch.arange(5) == n))
    got = MonteCarlo(samples=1).advantage(rollout, RewardSignal(own.sum(1), own), sampler)
    assert got.value.tolist() == [[1 + 7, 2 + 7, 3 + 7, 4 + 7, 5]]
    two = MonteCarlo(samples=1, stride=2).advantage(rollout, RewardSignal(own.sum(1), own), sampler)
    assert two.value.tolist() == [[1 + 2 + 7, 2 + 7, 3 + 4 + 7, 4 + 7, 5]]
    before = MonteCarlo(samples=1, compare="before").advantage(rollout, RewardSignal(own.sum(1), own), sampler)
    assert before.value.tolist() == [[1, 2, 3, 4, 5 - 7]]


def test_unjudged_continuations_are_left_out():
    answers = iter([1.0, torch.nan, torch.nan, torch.nan, 4.0, 6.0, 8.0, torch.nan])
    got = MonteCarlo(samples=2).advantage(*line(), Scripted(worth=lambda n: next(answers)))
    assert got.value.tolist() == [[1, 5, 5, 8, 100]]  # nobody could judge after two tokens: what three are worth


def test_forced_openings_and_unjudged_episodes_are_not_taught():
    rollout, signal = line(2)
    mask = rollout.action_mask.clone()
    mask[0, :2] = False
    signal = RewardSignal(torch.tensor([100.0, torch.nan]))
    sampler = Scripted()
    got = MonteCarlo(samples=1, compare="before").advantage(replace(rollout, action_mask=mask), signal, sampler)
    assert got.value.tolist() == [[0, 0, 10, 10, 60], [0, 0, 0, 0, 0]]
    assert {len(opening) for opening in sampler.asked[0][0]} == {2, 3, 4}


def test_advantages_are_clean_where_nothing_can_be_taught():
    rollout, signal = toy_episodes()
    policy, reward = bigram_world()
    play = Sample(max_length=4)
    bind_all(play, toy_facts(ToyTokenizer(4, eos=3)))
    value = MonteCarlo(samples=2).advantage(rollout, signal, ToySampler(policy, play, reward)).value
    assert value.isfinite().all()
    assert (value[~(rollout.action_mask & signal.judged[:, None])] == 0).all()


def test_parts_ask_for_the_same_continuations():
    asked = []
    for rows in (3, 1000):
        sampler = Scripted()
        MonteCarlo(samples=2, rows=rows).advantage(*line(2), sampler)
        asked.append([opening for openings, _ in sampler.asked for opening in openings])
        assert max(len(openings) for openings, _ in sampler.asked) <= rows
    assert asked[0] == asked[1]
    assert len(asked[0]) == 2 * 4 * 2


def test_delayed_policy_plays_on():
    other, _ = tree_world()
    sampler = Scripted(delayed=other)
    baseline = MonteCarlo(samples=1, policy="delayed")
    baseline.check(sampler)
    baseline.advantage(*line(), sampler)
    assert [policy is other for _, policy in sampler.asked] == [True]
    with pytest.raises(ValueError, match=r"Add model.reference: \{decay: 0.8\}"):
        baseline.check(Scripted())


def test_nothing_is_played_while_the_policy_holds_still():
    sampler = Scripted()
    sampler.holding = True
    assert MonteCarlo().advantage(*line(), sampler).value.eq(0).all()
    assert sampler.asked == []


def test_refuses_what_it_cannot_serve():
    policy, reward = tree_world()
    with pytest.raises(ValueError, match="BeamSearch, which cannot go on"):
        MonteCarlo().check(ToySampler(policy, BeamSearch(), reward))
    with pytest.raises(ValueError, match="SelfBLEU, which looks at the whole batch"):
        MonteCarlo().check(ToySampler(policy, decoder(), SelfBLEU()))
    facts = toy_facts(ToyTokenizer(3))
    with pytest.raises(ValueError, match="nobody answers"):
        MonteCarlo().bind(TaskFacts(facts.tokenizer, (), facts.example, environment=Reward.__new__(TableReward)))
    with pytest.raises(ValueError, match="expected each >= 1"):
        MonteCarlo(samples=0)
