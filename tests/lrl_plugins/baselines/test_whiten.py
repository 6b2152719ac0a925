"""Whitening over the taught tokens."""

import pytest
import torch

from lrl_core.functional import compared_with
from lrl_core.interfaces import Baseline
from lrl_core.testing.parts import toy_experience
from lrl_core.testing.toy import ToySampler, tree_world
from lrl_core.types import Advantage, RewardSignal
from lrl_plugins.baselines.constant import Constant
from lrl_plugins.baselines.group import GroupMean
from lrl_plugins.baselines.whiten import Whiten, rescaled, whitened
from lrl_plugins.decoders.sample import Sample


class Critical(Baseline):
    """Brings a target and values along."""

    def __init__(self, number=0.5):
        super().__init__()
        self.number = number

    def advantage(self, rollout, reward, sampler):
        value = compared_with(reward.total.new_full((len(rollout),), self.number), rollout, reward).value
        return Advantage(value, torch.full_like(value, 5), torch.full_like(value, 6))


class Seen(Baseline):
    """Remembers the rewards that it is given."""

    def advantage(self, rollout, reward, sampler):
        self.reward = reward
        return compared_with(reward.total.new_zeros(len(rollout)), rollout, reward)


def advantage(baseline, total=None, by_token=None):
    experience = toy_experience()
    policy, judge = tree_world()
    reward = experience.reward if total is None else RewardSignal(torch.tensor(total, dtype=torch.float64))
    if by_token is not None:
        reward = RewardSignal(by_token.sum(1), by_token=by_token)
    got = baseline.advantage(experience.rollout, reward, ToySampler(policy, Sample(samples=2), judge))
    return got, experience.rollout.action_mask & reward.judged[:, None]


def test_whitened_by_hand():
    values = torch.tensor([[1.0, 99, 3], [5, 7, 99]], dtype=torch.float64)
    mask = torch.tensor([[True, False, True], [True, True, False]])
    root = 5**0.5  # mean 4, squares 9 1 1 9, over 4
    expected = [[-3 / root, 0, -1 / root], [1 / root, 3 / root, 0]]
    assert torch.allclose(whitened(values, mask), torch.tensor(expected, dtype=torch.float64), atol=1e-7)
    scaled = [[1 / root, 0, 3 / root], [5 / root, 7 / root, 0]]
    assert torch.allclose(whitened(values, mask, shift=False), torch.tensor(scaled, dtype=torch.float64), atol=1e-7)


@pytest.mark.parametrize("inner", [Constant, GroupMean, Critical], ids=["REINFORCE++", "baseline", "critic"])
def test_taught_tokens_have_mean_0_and_variance_1(inner):
    got, taught = advantage(Whiten(inner()), total=[1.0, float("nan"), 0.25, 2.0])
    assert got.value[taught].mean().item() == pytest.approx(0, abs=1e-9)
    assert got.value[taught].var(unbiased=False).item() == pytest.approx(1, abs=1e-6)
    assert (got.value[~taught] == 0).all()


def test_whiten_of_rewards_by_token_whitens_the_rewards_to_go():
    by_token = torch.tensor([[1.0, 2, 3, 4], [1, 1, 0, 0], [0, 0, 5, 0], [1, 0, 0, 1]], dtype=torch.float64)
    got, taught = advantage(Whiten(Constant()), by_token=by_token)
    to_go = torch.tensor([[10.0, 9, 7, 4], [2, 1, 0, 0], [5, 5, 5, 0], [2, 1, 1, 1]], dtype=torch.float64)[taught]
    assert torch.allclose(got.value[taught], (to_go - to_go.mean()) / to_go.std(unbiased=False))


def test_rewards_are_rescaled_by_hand_before_the_baseline_sees_them():
    """Over the taught tokens; their mean stays, and the signal still adds up. The first token of the last row and the
    second of the first are no actions: what they earned counts for the action before, or is dropped without one."""
    experience = toy_experience()
    mask = experience.rollout.action_mask
    earned = torch.where(mask, torch.tensor([[1.0, 2, 3, 4], [0, 0, 0, 0], [0, 0, 5, 0], [7, 0, 0, 1]]), 0).double()
    reward = RewardSignal(torch.tensor([1.0, torch.nan, 5, 1]).double().masked_fill(~mask.any(1), torch.nan), earned)
    judged = reward.judged
    reward = RewardSignal(torch.where(judged, earned.sum(1), torch.nan), by_token=earned)
    got = rescaled(experience.rollout, reward)
    taught = mask & judged[:, None]
    values = earned[taught]
    scale = ((values - values.mean()) ** 2).mean().sqrt()
    assert torch.allclose(got.by_token[taught], values / scale)
    assert torch.allclose(got.total[judged], got.by_token.sum(1)[judged])
    assert got.total[~judged].isnan().all()


def test_rewards_of_whole_episodes_are_rescaled_on_their_last_token():
    """Rewards 1, 3 and 5 on the last of 4, 3 and 1 chosen tokens."""
    _, taught = advantage(Constant(), total=[1.0, float("nan"), 3.0, 5.0])
    seen = Seen()
    advantage(Whiten(seen, rewards=True), total=[1.0, float("nan"), 3.0, 5.0])
    count = int(taught.sum())
    mean, square = 9 / count, 35 / count
    expected = torch.tensor([1.0, 3.0, 5.0], dtype=torch.float64) / (square - mean**2) ** 0.5
    assert torch.allclose(seen.reward.total[[0, 2, 3]], expected)
    assert (seen.reward.by_token != 0).sum() == 3


def test_equal_rewards_teach_nothing():
    got, _ = advantage(Whiten(Constant()), total=[2.0, 2.0, 2.0, 2.0])
    assert (got.value == 0).all()


def test_whiten_leaves_what_the_critic_learns():
    got, _ = advantage(Whiten(Critical()))
    assert (got.target == 5).all()
    assert (got.values == 6).all()


def test_whiten_refuses_no_floor():
    with pytest.raises(ValueError, match="epsilon is 0"):
        Whiten(epsilon=0)
