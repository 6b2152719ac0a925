"""Values that somebody else's code gave, as rewards: one number per episode, NaN where it said nothing."""

import math
from collections.abc import Iterable
from numbers import Real
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lrl_core.registry import PluginError


def as_rewards(who: str, given: Any, count: int) -> Float[Tensor, " B"]:
    """The values as a float32 tensor on the CPU; None becomes NaN.

    Args:
        who: Who gave them, for the message.
        given: A tensor [B], an array or any series of numbers and None.
        count: How many are expected.
    """
    expected = f"{count} numbers, one per text (None or NaN where it cannot judge)"
    if isinstance(given, (str, bytes, dict)) or not isinstance(given, Iterable):
        raise PluginError(f"{who} gave a {type(given).__name__}; expected {expected}. Return a list.")
    if isinstance(given, Tensor) and given.dim() != 1:
        raise PluginError(f"{who} gave a tensor of shape {list(given.shape)}; expected {expected}. Reshape it to [B].")
    values = given.tolist() if isinstance(given, Tensor) else list(given)
    if len(values) != count:
        raise PluginError(
            f"{who} gave {len(values)} values; expected {expected}. Give one for each text, in order; nothing "
            "is broadcast."
        )
    return torch.tensor([_number(who, place, value) for place, value in enumerate(values)], dtype=torch.float32)


def _number(who: str, place: int, value: Any) -> float:
    if isinstance(value, Tensor) and value.dim() == 0:
        value = value.item()
    if value is None:
        return math.nan
    if not isinstance(value, Real):
        raise PluginError(
            f"{who} gave {str(value)[:40]!r} of type {type(value).__name__} for text {place}; expected a number, None "
            "or NaN. Convert it to a float."
        )
    number = float(value)
    if math.isinf(number):
        raise PluginError(
            f"{who} gave {number} for text {place}; expected a finite number, None or NaN. Clamp it, or give None "
            "where there is nothing to say."
        )
    return number
