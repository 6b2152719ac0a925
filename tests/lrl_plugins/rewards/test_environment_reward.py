from dataclasses import replace

import pytest
import torch

from lrl_core.interfaces import bind_all
from lrl_core.scoring import judge
from lrl_core.testing.environments import ToyOracle
from lrl_core.testing.parts import bigram_world, toy_episodes
from lrl_core.testing.rewards import check_reward, example_rollout
from lrl_core.testing.toy import ToySampler, ToyTokenizer, toy_facts
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.rewards.environment import EnvironmentReward
from lrl_plugins.rewards.length import Length
from lrl_plugins.rewards.sum import Sum

torch.set_num_threads(1)
PAID = torch.tensor([[0, 0.5, 0, 1.0], [0, 0, 0, 0], [0, 0, -2.0, 0], [0, 0.25, 0, 0]])


def test_conforms():
    rollout = example_rollout()
    paid = torch.arange(rollout.tokens.numel()).view(rollout.tokens.shape) * rollout.action_mask * 0.1
    check_reward(EnvironmentReward, replace(rollout, environment_reward=paid))


def test_pays_what_the_environment_paid_where_it_paid():
    rollout, _ = toy_episodes()
    signal = judge(EnvironmentReward(), replace(rollout, environment_reward=PAID))
    assert signal.total.tolist() == [1.5, 0, -2.0, 0.25]
    assert signal.by_token.tolist() == PAID.tolist()


def test_what_no_environment_has_heard_is_not_judged():
    rollout, _ = toy_episodes()
    assert judge(EnvironmentReward(), rollout).total.isnan().all()


def sampler(reward):
    return ToySampler(bigram_world()[0], Sample(), reward)


@pytest.mark.parametrize("wrap", [lambda reward: reward, lambda reward: Sum({"paid": reward, "length": Length()})])
def test_a_task_without_an_environment_is_refused_when_the_recipe_is_read(wrap):
    reward = EnvironmentReward()
    facts = toy_facts(ToyTokenizer(4, eos=3))
    bind_all(wrap(reward), facts)
    with pytest.raises(ValueError, match=r"EnvironmentReward: nobody answers.*expected a task with an environment"):
        reward.check(sampler(reward))
    bind_all(wrap(reward), replace(facts, environment=ToyOracle()))
    reward.check(sampler(reward))
