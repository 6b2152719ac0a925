"""Comparisons with a mean of rewards: of the batch, of the past, of the other samples of the same prompt."""

import torch

from lrl_core.functional import compared_with, leave_one_out_mean
from lrl_core.interfaces import Baseline, Sampler
from lrl_core.ranks import sum_over_ranks
from lrl_core.types import Advantage, RewardSignal, Rollout


def _sum_and_count(reward: RewardSignal) -> torch.Tensor:
    """Sum and number of the judged rewards on all ranks."""
    judged = reward.judged
    local = torch.stack([reward.total[judged].sum().double(), judged.sum().double()])
    return sum_over_ranks(local)


class BatchMean(Baseline):
    """Compares with the mean reward of the whole batch, over all ranks.

    A sample's own reward is in the mean, which scales the expected gradient by (N-1)/N and leaves its direction.
    """

    def advantage(self, rollout: Rollout, reward: RewardSignal, sampler: Sampler) -> Advantage:
        total, count = _sum_and_count(reward)
        mean = (total / count.clamp(min=1)).to(reward.total.dtype)
        return compared_with(mean.expand(len(rollout)), rollout, reward)


class RunningMean(Baseline):
    """Compares with the mean of all rewards of earlier steps, over all ranks.

    It is updated after use, so a sample is never compared with itself and the gradient stays unbiased.

    Args:
        initial: What the first step is compared with.
        decay: Weight of the past at each update, in (0, 1), for a mean that forgets; None weighs all rewards alike.
    """

    mean: torch.Tensor
    count: torch.Tensor

    def __init__(self, initial: float = 0.0, decay: float | None = None) -> None:
        super().__init__()
        if decay is not None and not 0 < decay < 1:
            raise ValueError(f"RunningMean: decay is {decay}; expected a number in (0, 1), or null for a plain mean.")
        self.decay = decay
        self.register_buffer("mean", torch.tensor(initial, dtype=torch.float64))
        self.register_buffer("count", torch.tensor(0.0, dtype=torch.float64))

    def advantage(self, rollout: Rollout, reward: RewardSignal, sampler: Sampler) -> Advantage:
        result = compared_with(self.mean.to(reward.total.dtype).expand(len(rollout)), rollout, reward)
        self._remember(reward)
        return result

    def _remember(self, reward: RewardSignal) -> None:
        total, count = _sum_and_count(reward)
        if count == 0:
            return
        share = count / (self.count + count) if self.decay is None or self.count == 0 else 1 - self.decay
        self.mean += share * (total / count - self.mean)
        self.count += count


class LeaveOneOut(Baseline):
    """Compares with the mean reward of the other samples of the same prompt (RLOO; "new self-critical", Luo 2020).

    Exactly unbiased. A sample whose companions could not be judged has nothing to compare with and teaches nothing.
    """

    def check(self, sampler: Sampler) -> None:
        if sampler.decoder is not None and sampler.decoder.samples < 2:
            raise ValueError(
                f"LeaveOneOut: the decoder {type(sampler.decoder).__name__} draws {sampler.decoder.samples} sample per "
                "prompt; expected at least 2, to compare them. Set decoder.init_args.samples to 2 or more."
            )

    def advantage(self, rollout: Rollout, reward: RewardSignal, sampler: Sampler) -> Advantage:
        others = leave_one_out_mean(reward.total, rollout.prompts.group, reward.judged)
        return compared_with(others, rollout, reward)
