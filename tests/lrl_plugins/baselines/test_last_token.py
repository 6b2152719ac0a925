"""The mean of the batch on every token but the last: exact ratios to the true gradient, by enumeration."""

from dataclasses import replace

import pytest
import torch

from lrl_core.testing.exact import gradient_moments
from lrl_core.testing.parts import toy_episodes
from lrl_core.testing.toy import TREE_GRADIENT, ToySampler, tree_world
from lrl_plugins.baselines.last_token import LastToken
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.objectives.reinforce import Reinforce


@pytest.mark.parametrize(
    ("subtract_mean", "samples", "before_last", "last"),
    [(False, 2, 0.5, 1.0), (False, 3, 0.333333, 1.0), (True, 2, 0.0, 0.5)],
)
def test_ratio_to_the_true_gradient(subtract_mean, samples, before_last, last):
    """Line 0 of the table is about the first of two tokens, the other lines about the last."""
    policy, reward = tree_world()
    sampler = ToySampler(policy, Sample(), reward)
    mean, _ = gradient_moments(policy, reward, LastToken(subtract_mean), Reinforce(), sampler, samples)
    ratio = torch.tensor([before_last, last, last, last])[:, None]
    assert torch.allclose(mean, -(ratio * torch.tensor(TREE_GRADIENT)).double(), atol=2e-6)


def test_the_last_chosen_token_gets_its_own_reward_and_the_others_the_mean():
    rollout, signal = toy_episodes()  # rewards 1, unknown, 0.25 and 2; the second token of the first line is not chosen
    mask = rollout.action_mask.clone()
    mask[3, 3] = False  # somebody else has the last word
    mean = 3.25 / 3
    policy, reward = tree_world()
    sampler = ToySampler(policy, Sample(), reward)
    got = LastToken().advantage(replace(rollout, action_mask=mask), signal, sampler).value
    expected = [[mean, 0, mean, 1], [0, 0, 0, 0], [mean, mean, 0.25, 0], [mean, mean, 2, 0]]
    assert torch.allclose(got, torch.tensor(expected).double())
    got = LastToken(subtract_mean=True).advantage(rollout, signal, sampler).value
    assert torch.allclose(got[0], torch.tensor([0, 0, 0, 1 - mean]).double())
