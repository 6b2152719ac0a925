"""Greedy matching of two texts' token embeddings, the arithmetic of BERTScore."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lrl_core.metrics.embeddings import greedy_match
from lrl_plugins.rewards.pretrained import by_length


class Embedded(NamedTuple):
    """A text as a reward sees it."""

    vectors: Tensor
    """[L D] of length 1: one per token, special ones included."""
    weights: Tensor
    """[L] how much each token counts; 0 on special tokens."""
    counts: bool
    """Whether any token counts."""

    def __len__(self) -> int:
        return self.weights.shape[0]


class Match(NamedTuple):
    """A candidate and what it is compared with."""

    said: Embedded
    known: tuple[Embedded, ...]
    """At least one reference."""

    def __len__(self) -> int:
        """Tokens of all references."""
        return sum(map(len, self.known))


def best_matches(matches: Sequence[Match], device: torch.device) -> Tensor:
    """Precision, recall and F1 [N 3] of each candidate against the reference where each is highest.

    Args:
        matches: Candidates with their references.
        device: Where to compute; references remembered from before the model moved are brought there.
    """
    best = torch.zeros(len(matches), 3, device=device)
    for places, batch in by_length(matches, len, len(matches)):
        scores = compared([match.said for match in batch], [match.known for match in batch], device)
        best[torch.tensor(places, device=device)] = scores.amax(1)
    return best


def compared(said: Sequence[Embedded], known: Sequence[Sequence[Embedded]], device: torch.device) -> Tensor:
    """Precision, recall and F1 [N K 3] of each candidate and each of its at most K references; -inf beyond the last.

    One product of a candidate with all its references, for all candidates at once.

    Args:
        said: The candidates.
        known: The references of each.
        device: Where to compute.
    """
    ours, theirs = _joined([[text] for text in said], device), _joined(known, device)
    # The longer side first: matrix libraries are slow where the first has few lines.
    similarity = theirs.vectors @ ours.vectors.mT  # [N L H]
    place, real = _places(known, device)  # [N K R] among the L tokens
    row = torch.arange(len(known), device=device)[:, None, None]
    weights = theirs.weights[row, place] * real
    pairs = similarity[row, place].mT  # [N K H R]
    scores = greedy_match(pairs, ours.weights[:, None], weights, ours.real[:, None], real)
    return scores.masked_fill(~real[..., :1], -math.inf)


class _Lines(NamedTuple):
    vectors: Tensor
    """[N L D] 0 where not real."""
    weights: Tensor
    """[N L] 0 where not real."""
    real: Tensor
    """[N L]"""


def _joined(rows: Sequence[Sequence[Embedded]], device: torch.device) -> _Lines:
    """The tokens of each row's texts one after another, all rows in one copy."""
    sizes = [sum(map(len, row)) for row in rows]
    longest, width = max(sizes), rows[0][0].vectors.shape[1]
    blank = Embedded(torch.zeros(longest, width, device=device), torch.zeros(longest, device=device), False)
    vectors, weights = [], []
    for row, size in zip(rows, sizes, strict=True):
        vectors += [text.vectors.to(device) for text in row] + [blank.vectors[size:]]
        weights += [text.weights.to(device) for text in row] + [blank.weights[size:]]
    real = torch.arange(longest, device=device) < torch.tensor(sizes, device=device)[:, None]
    shape = (len(rows), longest)
    return _Lines(torch.cat(vectors).view(*shape, width), torch.cat(weights).view(shape), real)


def _places(rows: Sequence[Sequence[Embedded]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Where each text's tokens stand in its row [N K R], and which of these are real."""
    most = max(map(len, rows))
    sizes = torch.tensor([[len(text) for text in row] + [0] * (most - len(row)) for row in rows], device=device)
    step = torch.arange(int(sizes.max()), device=device)
    real = step < sizes[..., None]
    return torch.where(real, (sizes.cumsum(1) - sizes)[..., None] + step, 0), real
