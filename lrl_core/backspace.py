"""Taking words back: what is left of a line in which one token deletes the one before it, and what follows what."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor


def kept(ids: Sequence[int], backspace: int | None) -> list[int]:
    """What is left of a line once every backspace has taken back the last token that is left before it.

    A backspace where nothing is left does nothing (Cundy and Ermon 2023, section 3.3).

    Args:
        ids: A line of tokens.
        backspace: Which of them takes one back; None: the line stays as it is.
    """
    left: list[int] = []
    for token in ids:
        if backspace is None or token != backspace:
            left.append(token)
        elif left:
            left.pop()
    return left


def follows_of(tokens: Int[Tensor, "B T"], lengths: Int[Tensor, " B"], backspace: int) -> Int[Tensor, "B T"]:
    """Which token each token of a line with deletions follows: the last one that is left before it, -1 for the prompt.

    A backspace itself is followed by nothing. Padding follows the token before it.

    Args:
        tokens: Episodes, padded on the right.
        lengths: How many of the T tokens are real.
        backspace: Which token takes the last one back.
    """
    lines = []
    for line, length in zip(tokens.tolist(), lengths.tolist(), strict=True):
        left: list[int] = []
        follows = []
        for place, token in enumerate(line[:length]):
            follows.append(left[-1] if left else -1)
            if token != backspace:
                left.append(place)
            elif left:
                left.pop()
        lines.append(follows + list(range(length - 1, len(line) - 1)))
    return torch.tensor(lines, device=tokens.device, dtype=torch.long).view(tokens.shape)
