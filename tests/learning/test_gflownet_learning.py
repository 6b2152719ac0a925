"""A GFlowNet reaches the exact posterior, from its own draws and from those of a policy that never learns."""

import pytest
import torch
from prefix_tree import TreePolicy, TreeReward, four_letters, two_letters

from lrl_core.types import Experience
from lrl_plugins.decoders.limits import Constraints
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.objectives.subtb import SubTB

torch.set_num_threads(1)
TEMPERATURES = [1.0, 0.5]
WHO_DRAWS = ["the policy", "a uniform policy"]


def distance(tree, temperature, who, steps, samples, rate):
    """Total variation between answers of the trained policy and the posterior, of the worst prompt."""
    torch.manual_seed(0)
    policy, reward, objective = TreePolicy(tree), TreeReward(tree), SubTB(temperature=temperature)
    draws = Sample(max_length=tree.longest + 1, samples=samples, constraints=Constraints(end_at_limit=True))
    decoder, behaviour = tree.bound(draws), policy if who == "the policy" else TreePolicy(tree)
    optimizer = torch.optim.Adam(policy.parameters(), rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    for _ in range(steps):
        rollout = decoder.decode(behaviour, tree.prompts)
        experience = Experience(rollout, reward.score(rollout))
        optimizer.zero_grad()
        (objective.loss(policy, experience).total / objective.count(experience).clamp(min=1)).backward()
        optimizer.step()
        schedule.step()
    apart = tree.drawn(policy.table.detach()) - tree.posterior(temperature)
    return (apart.abs().sum(1) / 2).max().item()


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("who", WHO_DRAWS)
def test_two_letters(who, temperature):
    assert distance(two_letters(), temperature, who, steps=100, samples=8, rate=0.15) < 0.01


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_a_policy_that_does_not_learn_is_far_away(temperature):
    for tree in (two_letters(), four_letters()):
        apart = tree.drawn(torch.zeros(*tree.log_r.shape, tree.symbols + 1)) - tree.posterior(temperature)
        assert (apart.abs().sum(1) / 2).min() > 0.1


def test_four_letters_from_a_uniform_policy():
    """Two prompts whose answers are worth different things."""
    assert distance(four_letters(), 0.5, "a uniform policy", steps=150, samples=128, rate=0.3) < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("who", WHO_DRAWS)
def test_four_letters(who, temperature):
    assert distance(four_letters(), temperature, who, steps=400, samples=128, rate=0.2) < 0.01
