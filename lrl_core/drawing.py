"""A few tokens per row of a large vocabulary: drawn with one random number each, or the most probable ones.

All look at the vocabulary in blocks: one cheap pass over all entries, and a close look at a single block.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

BLOCK = 128
"""Entries of the vocabulary in a block."""


def draw(
    scaled: Float[Tensor, "N V"], uniform: Float[Tensor, " N"] | None = None
) -> tuple[Int[Tensor, " N"], Float[Tensor, " N"]]:
    """Draw from softmax(scaled) by the inverse distribution function; the tokens and their log-probabilities.

    The token is the first whose cumulative probability is above the random number, so that one number per row does
    the work of one per entry. A token of probability 0 is never drawn.

    Args:
        scaled: Logits after bans, temperature and truncation; at least one finite entry in each row.
        uniform: Numbers in [0, 1); None draws them.
    """
    if uniform is None:
        uniform = torch.rand(len(scaled), device=scaled.device, dtype=scaled.dtype)
    largest = scaled.amax(1, keepdim=True)
    weights = (scaled - largest).exp_()
    reached = _block_sums(weights).cumsum(1)
    total = reached[:, -1:]
    goal = uniform[:, None] * total
    block = _first_above(reached, goal)
    before = torch.where(block > 0, reached.gather(1, (block - 1).clamp(min=0)), 0)
    columns, inside = _columns(block, scaled.shape[1])
    within = torch.where(inside, weights.gather(1, columns), 0).cumsum(1)
    tokens = columns.gather(1, _first_above(within, goal - before))
    return tokens.squeeze(1), (scaled.gather(1, tokens) - largest - total.log()).squeeze(1)


def take_best(scaled: Float[Tensor, "N V"]) -> tuple[Int[Tensor, " N"], Float[Tensor, " N"]]:
    """The first largest entry of each row, and its log-probability under softmax(scaled)."""
    columns, inside = _columns(_block_largest(scaled).argmax(1, keepdim=True), scaled.shape[1])
    candidates = scaled.gather(1, columns).masked_fill(~inside, -torch.inf)
    largest, which = candidates.max(1, keepdim=True)
    return columns.gather(1, which).squeeze(1), -(scaled - largest).exp_().sum(1).log()


def largest(scaled: Float[Tensor, "N V"], count: int) -> tuple[Float[Tensor, "N K"], Int[Tensor, "N K"]]:
    """The K largest entries of each row, largest first, and where they stand.

    The K largest stand in the K blocks with the largest maxima, so that only those are sorted.
    """
    vocabulary = scaled.shape[1]
    if 2 * count * BLOCK >= vocabulary:
        return scaled.topk(count, dim=1)
    blocks = _block_largest(scaled).topk(count, dim=1).indices
    columns, inside = _columns(blocks[:, :, None], vocabulary)
    columns, inside = columns.flatten(1), inside.flatten(1)
    values, which = scaled.gather(1, columns).masked_fill_(~inside, -torch.inf).topk(count, dim=1)
    return values, columns.gather(1, which)


def _block_largest(scaled: Tensor) -> Tensor:
    vocabulary = scaled.shape[1]
    whole = vocabulary - vocabulary % BLOCK
    best = scaled[:, :whole].unflatten(1, (-1, BLOCK)).amax(2)
    return best if whole == vocabulary else torch.cat([best, scaled[:, whole:].amax(1, keepdim=True)], 1)


def _block_sums(weights: Tensor) -> Tensor:
    vocabulary = weights.shape[1]
    whole = vocabulary - vocabulary % BLOCK
    sums = weights[:, :whole].unflatten(1, (-1, BLOCK)).sum(2)
    return sums if whole == vocabulary else torch.cat([sums, weights[:, whole:].sum(1, keepdim=True)], 1)


def _columns(block: Tensor, vocabulary: int) -> tuple[Tensor, Tensor]:
    """The entries of one block per row, and which of them exist: the last block may be short."""
    columns = block * BLOCK + torch.arange(BLOCK, device=block.device)
    return columns.clamp(max=vocabulary - 1), columns < vocabulary


def _first_above(reached: Tensor, goal: Tensor) -> Tensor:
    """The first entry of rising rows that is above the goal; rounding never leads behind the last that rises."""
    last = torch.searchsorted(reached, reached[:, -1:].contiguous())
    return torch.minimum(torch.searchsorted(reached, goal, right=True), last)
