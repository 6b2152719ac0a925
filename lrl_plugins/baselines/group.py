"""Comparisons within a prompt's samples, the sample itself included."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lrl_core.functional import compared_with, group_mean, group_std, group_sum
from lrl_core.interfaces import Baseline, Sampler
from lrl_core.ranks import sum_over_ranks
from lrl_core.types import Advantage, RewardSignal, Rollout

Scale = Literal["none", "group", "batch"]


class GroupMean(Baseline):
    """Compares with the mean reward of all samples of the same prompt, if wanted in units of their spread (GRPO).

    `group` is Shao et al. 2024 (GRPO): dividing by the spread weighs prompts by 1 / std, so the expected gradient is no
    longer that of the reward. `none` is Liu et al. 2025 (Dr. GRPO): the policy gradient times (G-1)/G, because a
    sample's own reward is in the mean. Samples that all earned the same have advantage 0; unjudged ones are left out. A
    prompt that was sampled only once is compared with nothing: its advantage is its reward, in every scale.

    Args:
        scale: What differences are divided by: `none`, the standard deviation of the prompt's samples (`group`), or
            that of the whole batch over all ranks (`batch`); both over n - 1.
        epsilon: Added to the standard deviation.
    """

    def __init__(self, scale: Scale = "none", epsilon: float = 1e-4) -> None:
        super().__init__()
        if scale not in ("none", "group", "batch"):
            raise ValueError(f"GroupMean: scale is {scale!r}; expected none, group or batch. Choose one of them.")
        if epsilon <= 0:
            raise ValueError(f"GroupMean: epsilon is {epsilon}; expected a number > 0, such as 1e-4.")
        self.scale, self.epsilon = scale, epsilon

    def advantage(self, rollout: Rollout, reward: RewardSignal, sampler: Sampler) -> Advantage:
        group, judged = rollout.prompts.group, reward.judged
        alone = group_sum(torch.ones_like(reward.total), group) == 1
        mean = group_mean(reward.total, group, judged)
        difference = compared_with(torch.where(alone, 0, mean), rollout, reward).value
        divisor = torch.where(alone, 1, self._divisor(rollout, reward))
        return Advantage(difference / divisor[:, None])

    def _divisor(self, rollout: Rollout, reward: RewardSignal) -> Float[Tensor, " B"]:
        if self.scale == "none":
            return torch.ones_like(reward.total)
        if self.scale == "group":
            return group_std(reward.total, rollout.prompts.group, reward.judged) + self.epsilon
        return (batch_std(reward.total, reward.judged) + self.epsilon).expand(len(rollout))


def batch_std(values: Float[Tensor, " B"], judged: Bool[Tensor, " B"]) -> Float[Tensor, ""]:
    """Standard deviation (over n - 1) of the judged values of all ranks; 0 where there are fewer than two."""
    known = values[judged].double()
    total, count = sum_over_ranks(torch.stack([known.sum(), judged.sum().double()]))
    squares = sum_over_ranks((known - total / count.clamp(min=1)).pow(2).sum())
    return (squares / (count - 1).clamp(min=1)).sqrt().to(values.dtype)


class LengthWeighted(Baseline):
    """Compares with the mean reward of the prompt's samples, long ones weighing more (Hao et al. 2025, OPO).

    That is the baseline of least variance if the squared norm of an episode's gradient grows with its number of chosen
    tokens. A sample's own reward is in the mean, so the expected gradient is shrunk: exactly by (G-1)/G where lengths
    are equal, and not exactly along the policy gradient where they differ.
    """

    def advantage(self, rollout: Rollout, reward: RewardSignal, sampler: Sampler) -> Advantage:
        lengths = rollout.action_mask.sum(1)
        mean = group_mean(reward.total, rollout.prompts.group, reward.judged, weights=lengths.to(reward.total.dtype))
        return compared_with(mean, rollout, reward)
