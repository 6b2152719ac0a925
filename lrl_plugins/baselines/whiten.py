"""Advantages brought to mean 0 and variance 1."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lrl_core.interfaces import Baseline, Sampler
from lrl_core.ranks import sum_over_ranks
from lrl_core.types import Advantage, RewardSignal, Rollout
from lrl_plugins.baselines.constant import Constant


class Whiten(Baseline):
    """Brings the advantages of another baseline to mean 0 and variance 1 over all taught tokens of all ranks.

    Around Constant with rewards by token it is REINFORCE++ (Hu 2025); around GroupMean, REINFORCE++-baseline; around
    Value, the whitening of PPO (Ziegler et al. 2019). The variance is that of the population (over n, not n - 1). What
    a critic should learn stays as it is. The expected gradient is no longer exactly that of the reward.

    Args:
        baseline: Whose advantages; None: Constant.
        shift: Whether the mean is subtracted; without, only the scale is changed.
        epsilon: Added to the variance, so that advantages that are all equal become 0.
    """

    def __init__(self, baseline: Baseline | None = None, shift: bool = True, epsilon: float = 1e-8) -> None:
        super().__init__()
        if epsilon <= 0:
            raise ValueError(f"Whiten: epsilon is {epsilon}; expected a number > 0, such as 1e-8.")
        self.baseline = baseline or Constant()
        self.shift, self.epsilon = shift, epsilon

    def advantage(self, rollout: Rollout, reward: RewardSignal, sampler: Sampler) -> Advantage:
        plain = self.baseline.advantage(rollout, reward, sampler)
        taught = rollout.action_mask & reward.judged[:, None]
        return replace(plain, value=whitened(plain.value, taught, self.shift, self.epsilon))


def whitened(
    values: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], shift: bool = True, epsilon: float = 1e-8
) -> Float[Tensor, "B T"]:
    """(x - mean) / sqrt(variance + epsilon) over the masked entries of all ranks; 0 elsewhere.

    Args:
        values: What is whitened.
        mask: Which entries count.
        shift: Whether the mean is subtracted.
        epsilon: Added to the variance.
    """
    known = torch.where(mask, values, 0).double()
    total, count = sum_over_ranks(torch.stack([known.sum(), mask.sum().double()]))
    deviation = torch.where(mask, known - total / count.clamp(min=1), 0)
    variance = sum_over_ranks(deviation.pow(2).sum()) / count.clamp(min=1)
    return ((deviation if shift else known) / (variance + epsilon).sqrt()).to(values.dtype)
