"""What policy gradients with a KL penalty end at: pi* proportional to pi_ref exp(r / beta), exactly."""

import copy
from dataclasses import replace

import pytest
import torch

from lrl_core.scoring import judge
from lrl_core.testing.toy import (
    TREE_REWARD,
    TREE_TABLE,
    TablePolicy,
    TableReward,
    ToySampler,
    every_episode,
)
from lrl_core.types import Experience
from lrl_plugins.baselines.constant import Constant
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.objectives.ppo import PPO
from lrl_plugins.objectives.reinforce import Reinforce
from lrl_plugins.rewards.kl_penalty import KLPenalty
from lrl_plugins.rewards.sum import Sum


def trained(table, pays, beta, length, objective, passes, steps=100):
    """The policy after many steps from the reference policy, each on every episode there is.

    An episode's advantage is weighed by its probability, so that the gradient is the expected one, without noise.
    """
    policy = TablePolicy(table)
    reference = copy.deepcopy(policy)
    reward, baseline = Sum({"task": TableReward(pays), "kl": KLPenalty(beta)}), Constant()
    sampler = ToySampler(policy, Sample(), reward, baseline, reference)
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.2)
    rate = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.98)
    for _ in range(steps):
        with torch.no_grad():
            drawn, probability = every_episode(policy, length)
            drawn = replace(drawn, reference_logprobs=reference(drawn).logprobs)
            signal = judge(reward, drawn)
            advantage = baseline.advantage(drawn, signal, sampler)
            weighed = replace(advantage, value=advantage.value * probability[:, None] * len(drawn))
        for _ in range(passes):
            optimizer.zero_grad()
            experience = Experience(drawn, signal, weighed)
            (objective.loss(policy, experience).total / objective.count(experience)).backward()
            optimizer.step()
        rate.step()
    return policy, reference


def optimum(reference, pays, beta, length):
    episodes, probability = every_episode(reference, length)
    paid = torch.tensor([pays(tuple(tokens)) for tokens in episodes.tokens.tolist()], dtype=torch.float64)
    tilted = probability * (paid / beta).exp()
    return tilted / tilted.sum()


ONE = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64).log()
WORLDS = {
    "one token": (ONE, lambda tokens: 1.0 - tokens[0], 0.5, 1),
    "two tokens": (torch.tensor(TREE_TABLE), lambda tokens: TREE_REWARD[tokens[0]][tokens[1]], 1.0, 2),
}
METHODS = {
    "REINFORCE": (Reinforce(aggregation="seq-mean-token-sum"), 1),
    "PPO": (PPO(aggregation="seq-mean-token-sum"), 2),
}


def test_the_optimum_of_one_token_by_hand():
    assert optimum(TablePolicy(ONE), WORLDS["one token"][1], 0.5, 1).tolist() == pytest.approx(
        [0.918672, 0.074597, 0.006730], abs=1e-6
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("world", WORLDS)
def test_the_penalised_policy_becomes_the_tilted_reference(world, method):
    table, pays, beta, length = WORLDS[world]
    policy, reference = trained(table, pays, beta, length, *METHODS[method])
    best = optimum(reference, pays, beta, length)
    reached = every_episode(policy, length)[1]
    start = every_episode(reference, length)[1]
    assert divergence(start, best) > 0.1
    assert divergence(reached, best) < 1e-3


def divergence(p, q):
    return float((p * (p / q).log()).sum())
