"""Credit for the last token alone: the tokens before it get what the batch earned on average."""

import torch

from lrl_core.functional import credit
from lrl_core.interfaces import Baseline, Sampler
from lrl_core.ranks import sum_over_ranks
from lrl_core.types import Advantage, RewardSignal, Rollout


class LastToken(Baseline):
    """Weighs the last token by its episode's own reward and every token before it by the mean reward of the batch.

    A cheap stand-in for the continuations of MonteCarlo in SeqGAN (Yu 2017). It damps the reactions to a changing
    discriminator, at the price of bias: an episode takes part in the mean of N only with a share of 1/N, so that the
    expected gradient of the tokens before the last is the true one times 1/N; that of the last token is exact. The mean
    is over all ranks. For the reward of the whole episode on every token take Constant.

    Args:
        subtract_mean: Compare with the mean as well: the tokens before the last then have advantage 0, and the last one
            its own reward minus the mean, with an expected gradient of (N-1)/N times the true one.
    """

    def __init__(self, subtract_mean: bool = False) -> None:
        super().__init__()
        self.subtract_mean = subtract_mean

    def advantage(self, rollout: Rollout, reward: RewardSignal, sampler: Sampler) -> Advantage:
        judged, chosen = reward.judged, rollout.action_mask
        known = torch.stack([reward.total[judged].double().sum(), judged.double().sum()])
        total, count = sum_over_ranks(known)
        mean = (total / count.clamp(min=1)).to(reward.total.dtype)
        last = chosen & (chosen.flip(1).cumsum(1).flip(1) == 1)
        weight = torch.where(last, credit(rollout, reward), mean)
        weight = weight - mean if self.subtract_mean else weight
        return Advantage(torch.where(chosen & judged[:, None], weight, 0))
