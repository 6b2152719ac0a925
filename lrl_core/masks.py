"""The one place that turns lengths into masks."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def length_mask(lengths: Int[Tensor, " B"], width: int) -> Bool[Tensor, "B T"]:
    """True on the first `lengths[b]` of `width` columns."""
    return torch.arange(width, device=lengths.device) < lengths[:, None]
