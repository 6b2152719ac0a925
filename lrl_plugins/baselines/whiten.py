"""Advantages brought to mean 0 and variance 1."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lrl_core.functional import token_rewards
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
        rewards: Whether what each token earned is first divided by its standard deviation, its mean kept (Ziegler et
            al. 2019, for rewards of unknown scale). The other baseline then sees these rewards; one that scores rivals
            of its own, such as SelfCritical, would compare different scales.
    """

    def __init__(
        self, baseline: Baseline | None = None, shift: bool = True, epsilon: float = 1e-8, rewards: bool = False
    ) -> None:
        super().__init__()
        if epsilon <= 0:
            raise ValueError(f"Whiten: epsilon is {epsilon}; expected a number > 0, such as 1e-8.")
        self.baseline = baseline or Constant()
        self.shift, self.epsilon, self.rewards = shift, epsilon, rewards

    def advantage(self, rollout: Rollout, reward: RewardSignal, sampler: Sampler) -> Advantage:
        taught = rollout.action_mask & reward.judged[:, None]
        if self.rewards:
            reward = rescaled(rollout, reward, self.epsilon)
        plain = self.baseline.advantage(rollout, reward, sampler)
        return replace(plain, value=whitened(plain.value, taught, self.shift, self.epsilon))


def rescaled(rollout: Rollout, reward: RewardSignal, epsilon: float = 1e-8) -> RewardSignal:
    """The rewards by token, divided by their standard deviation over the taught tokens of all ranks.

    Args:
        rollout: The episodes.
        reward: Their rewards; one of the whole episode counts as earned by the last token.
        epsilon: Added to the variance.
    """
    taught = rollout.action_mask & reward.judged[:, None]
    by_token = whitened(token_rewards(rollout, reward), taught, shift=False, epsilon=epsilon)
    total = torch.where(reward.judged, by_token.sum(1), torch.nan)
    return replace(reward, total=total, by_token=by_token, by_prefix=None)


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
