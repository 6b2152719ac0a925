"""How long an episode should be, as a reward."""

from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from lrl_core.interfaces import Reward
from lrl_core.tokenizer import words
from lrl_core.types import RewardSignal, Rollout
from lrl_plugins.rewards.each import each_text

Mode: TypeAlias = Literal["linear", "overlong"]
"""linear: the distance from a wished length costs; overlong: only the last stretch before the limit costs."""
Unit: TypeAlias = Literal["words", "tokens"]
"""words of the text, or tokens that the policy chose (the end token is one of them)."""


def distance_penalty(lengths: Float[Tensor, " B"], target: int) -> Float[Tensor, " B"]:
    """-|length - target| / target: 0 at the wished length, -1 for nothing said or twice as much.

    Args:
        lengths: How long the episodes are.
        target: How long they should be; at least 1.
    """
    return -(lengths - target).abs() / target


def overlong_penalty(lengths: Float[Tensor, " B"], max_length: int, cache: int) -> Float[Tensor, " B"]:
    """DAPO's soft overlong punishment: 0 up to max_length - cache, from there down a line to -1 at max_length.

    Yu et al. 2025 (arXiv:2503.14476), equation 13.

    Args:
        lengths: How long the episodes are.
        max_length: Where the punishment is full.
        cache: Over how many tokens before that it grows; at least 1.
    """
    return ((max_length - cache - lengths) / cache).clamp(-1, 0)


class Length(Reward):
    """Penalty on the length of every episode: 0 at best, negative otherwise; made to be a term of a Sum.

    linear: -|length - target| / target. overlong: the soft overlong punishment of DAPO (Yu et al. 2025,
    arXiv:2503.14476), 0 up to max_length - cache, then down to -1 at max_length; the paper has max_length 20480 and
    cache 4096, in tokens.

    Args:
        mode: linear or overlong.
        unit: words of the text, or tokens that the policy chose, its end token included.
        target: Wished length, for linear.
        max_length: Length from which overlong is -1; normally the decoder's limit.
        cache: Over how many words or tokens below max_length the punishment of overlong grows.
    """

    concurrent = True

    def __init__(
        self, mode: Mode = "linear", unit: Unit = "words", target: int = 20, max_length: int = 100, cache: int = 20
    ) -> None:
        super().__init__()
        for name, value, expected in (("mode", mode, get_args(Mode)), ("unit", unit, get_args(Unit))):
            if value not in expected:
                listed = " or ".join(expected)
                raise ValueError(f"Length: {name} is {value!r}; expected {listed}. Correct the recipe.")
        if target < 1:
            raise ValueError(f"Length: target is {target}; expected at least 1, in {unit}. Correct the recipe.")
        if not 1 <= cache <= max_length:
            raise ValueError(
                f"Length: cache is {cache} and max_length is {max_length}; expected 1 <= cache <= max_length. "
                "Usual: a fifth of max_length."
            )
        self.mode, self.unit, self.target, self.max_length, self.cache = mode, unit, target, max_length, cache

    def score(self, rollout: Rollout) -> RewardSignal:
        """Judge every episode by its length."""
        if self.unit == "words":
            lengths = each_text(self, rollout, lambda text: len(words(text)))
        else:
            lengths = rollout.action_mask.sum(1).to(torch.float32)
        if self.mode == "linear":
            return RewardSignal(distance_penalty(lengths, self.target), parts={self.unit: lengths})
        return RewardSignal(overlong_penalty(lengths, self.max_length, self.cache), parts={self.unit: lengths})
