"""The mean of several baselines, and the one critic among them."""

import pytest
import torch

from lrl_core.functional import compared_with
from lrl_core.interfaces import Baseline
from lrl_core.testing.parts import check_baseline, toy_experience
from lrl_core.testing.toy import ToySampler, tree_world
from lrl_core.types import Advantage, RewardSignal
from lrl_plugins.baselines.constant import Constant
from lrl_plugins.baselines.mean_of import MeanOf
from lrl_plugins.baselines.means import LeaveOneOut
from lrl_plugins.baselines.value import Value
from lrl_plugins.baselines.whiten import Whiten
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.objectives.reinforce import Reinforce


class Critical(Baseline):
    """Brings a target and values along."""

    def __init__(self, number=0.5):
        super().__init__()
        self.number = number

    def advantage(self, rollout, reward, sampler):
        value = compared_with(reward.total.new_full((len(rollout),), self.number), rollout, reward).value
        return Advantage(value, torch.full_like(value, 5), torch.full_like(value, 6))


def advantage(baseline, total=(1.0, 2.0, 3.0, 4.0)):
    experience = toy_experience()
    policy, judge = tree_world()
    reward = RewardSignal(torch.tensor(total, dtype=torch.float64))
    got = baseline.advantage(experience.rollout, reward, ToySampler(policy, Sample(samples=2), judge))
    return got, experience.rollout.action_mask


def test_mean_of_is_weighted_and_takes_the_critic_over():
    got, taught = advantage(MeanOf([Constant(1.0), Critical(3.0)], [3.0, 1.0]))
    assert got.value[:, 0].tolist() == [1 - 1.5, 2 - 1.5, 3 - 1.5, 4 - 1.5]
    assert (got.value[~taught] == 0).all()
    assert got.target[0, 0] == 5
    assert got.values[0, 0] == 6


def test_mean_of_unbiased_baselines_is_unbiased():
    check_baseline(lambda: MeanOf([LeaveOneOut(), Constant(3.5)]), Reinforce(), Sample(max_length=2, samples=2))
    check_baseline(MeanOf, Reinforce(), Sample(max_length=2, samples=2))


def test_mean_of_refuses_two_critics():
    with pytest.raises(ValueError, match="2 baselines with a critic"):
        MeanOf([Value(), Whiten(Value())])
    with pytest.raises(ValueError, match="at most one"):
        advantage(MeanOf([Critical(), Critical()]))


@pytest.mark.parametrize("weights", [[1.0, 2.0], [-1.0], [0.0]])
def test_mean_of_refuses_weights_that_do_not_fit(weights):
    with pytest.raises(ValueError, match="MeanOf: got weights"):
        MeanOf([Constant()], weights)
