"""Bringing rewards of different scale together: normalisers for the terms of a `Sum`.

Those that standardise change the reward from batch to batch, so it can no longer be compared with that of a rival that
is scored apart: SelfCritical refuses them (`Reward.comparable`); there, give weights instead.
"""

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lrl_core.ranks import sum_over_ranks


class Affine(NamedTuple):
    """normalised = scale * raw + shift, held between two limits."""

    scale: Float[Tensor, ""]
    shift: Float[Tensor, ""]
    low: float = -math.inf
    high: float = math.inf

    def __call__(self, raw: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        """The normalised values; NaN stays NaN."""
        return (self.scale * raw + self.shift).clamp(self.low, self.high)


class Normaliser(nn.Module, ABC):
    """Chooses, from the rewards of a batch, how to rescale them."""

    comparable: bool = False
    """Whether the map is always the same, so that rewards of separate calls can be compared."""
    rowwise: bool = True
    """Whether, outside training, the map does not depend on the batch."""

    @abstractmethod
    def forward(self, total: Float[Tensor, " B"]) -> Affine:
        """The map for this batch; NaN rows (cannot judge) have no say."""


class Standardise(Normaliser):
    """Subtracts a running mean and divides by a running standard deviation of the judged episodes.

    The running values are updated in training mode only, before they are used, and stored in the checkpoint. Until
    the first training batch the reward is left as it is.

    Args:
        decay: How much of the old running values is kept at each batch, in [0, 1).
        floor: The divisor is at least this, so that a reward that hardly varies is not blown up; > 0.
        shift: Whether the mean is subtracted; without, only the scale is changed.
        clip: Normalised rewards are held within plus and minus this; None for no limit.
    """

    def __init__(self, decay: float = 0.99, floor: float = 1e-3, shift: bool = True, clip: float | None = None) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"Standardise: decay is {decay}; expected a number in [0, 1). Usual: 0.99.")
        self.decay, self.floor = decay, _checked_floor(self, floor)
        self.shift, self.limit = shift, _checked_limit(self, clip)
        self.mean: Tensor
        self.variance: Tensor
        self.seen: Tensor
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("variance", torch.ones(()))
        self.register_buffer("seen", torch.zeros((), dtype=torch.bool))

    def forward(self, total: Float[Tensor, " B"]) -> Affine:
        """The map with the running values."""
        if self.training:
            self._update(total.detach())
        if not self.seen:
            return Affine(torch.ones_like(self.mean), torch.zeros_like(self.mean))
        return _standardising(self.mean, self.variance, self.floor, self.shift, self.limit)

    def _update(self, total: Tensor) -> None:
        count, mean, variance = _moments(total, over_ranks=True)
        if count == 0:
            return
        if self.seen:
            apart = mean - self.mean
            between = self.decay * (1 - self.decay) * apart**2
            variance = self.decay * self.variance + (1 - self.decay) * variance + between
            mean = self.mean + (1 - self.decay) * apart
        self.mean.copy_(mean)
        self.variance.copy_(variance)
        self.seen.fill_(True)


class BatchStandardise(Normaliser):
    """Subtracts the mean and divides by the standard deviation of this batch's judged episodes.

    In training mode the batch is that of all ranks together.

    Args:
        floor: The divisor is at least this, so that a batch of nearly equal rewards is not blown up; > 0.
        shift: Whether the mean is subtracted; without, only the scale is changed.
        clip: Normalised rewards are held within plus and minus this; None for no limit.
    """

    rowwise = False

    def __init__(self, floor: float = 1e-3, shift: bool = True, clip: float | None = None) -> None:
        super().__init__()
        self.floor = _checked_floor(self, floor)
        self.shift, self.limit = shift, _checked_limit(self, clip)

    def forward(self, total: Float[Tensor, " B"]) -> Affine:
        """The map with the batch's values."""
        _, mean, variance = _moments(total.detach(), over_ranks=self.training)
        return _standardising(mean, variance, self.floor, self.shift, self.limit)


class Clip(Normaliser):
    """Holds rewards between two limits, so that no single judgment of a learnt reward outweighs a batch.

    Where a reward pays by token, its last token makes up for what is cut off.

    Args:
        low: The least that is paid.
        high: The most that is paid; larger than low.
    """

    comparable = True

    def __init__(self, low: float = -5.0, high: float = 5.0) -> None:
        super().__init__()
        if not low < high:
            raise ValueError(f"Clip: got low {low} and high {high}; expected low < high. Correct the recipe.")
        self.low, self.high = low, high

    def forward(self, total: Float[Tensor, " B"]) -> Affine:
        """The same map for every batch."""
        return Affine(total.new_ones(()), total.new_zeros(()), self.low, self.high)


def _standardising(mean: Tensor, variance: Tensor, floor: float, shift: bool, limit: float) -> Affine:
    scale = 1 / variance.sqrt().clamp(min=floor)
    return Affine(scale, -mean * scale if shift else torch.zeros_like(mean), -limit, limit)


def _moments(total: Tensor, over_ranks: bool) -> tuple[Tensor, Tensor, Tensor]:
    """How many judged rows, their mean and their (population) variance; in float32 or wider."""
    judged = total[~total.isnan()]
    judged = judged if judged.dtype == torch.float64 else judged.float()
    combine = sum_over_ranks if over_ranks else torch.Tensor.clone
    count, summed = combine(torch.stack([judged.new_tensor(len(judged)), judged.sum()]))
    mean = summed / count.clamp(min=1)
    return count, mean, combine(((judged - mean) ** 2).sum()) / count.clamp(min=1)


def _checked_floor(normaliser: Normaliser, floor: float) -> float:
    if floor <= 0:
        raise ValueError(f"{type(normaliser).__name__}: floor is {floor}; expected a number > 0. Usual: 0.001.")
    return floor


def _checked_limit(normaliser: Normaliser, clip: float | None) -> float:
    if clip is not None and clip <= 0:
        raise ValueError(
            f"{type(normaliser).__name__}: clip is {clip}; expected a number > 0, or null for no limit. Usual: 5."
        )
    return math.inf if clip is None else clip
