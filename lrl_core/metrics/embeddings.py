"""Texts compared by embeddings: token by token, as BERTScore does, and how far apart the texts of a set are."""

import math

import torch
from torch import Tensor


def embedding_diversity(vectors: Tensor) -> float:
    """1 - the mean cosine of two different texts of a set, 0 to 2; 0 where all say the same.

    Args:
        vectors: [k D] one embedding per text, at least two.
    """
    if len(vectors) < 2:
        raise ValueError(f"embedding_diversity got {len(vectors)} texts; expected at least 2. Draw more samples.")
    unit = torch.nn.functional.normalize(vectors.double(), dim=-1)
    # All pairs at once: the squared length of the sum holds every pair twice and every text with itself.
    alike = unit.sum(0).square().sum() - unit.square().sum()
    return 1 - float(alike) / (len(unit) * (len(unit) - 1))


def greedy_match(
    similarity: Tensor,
    said_weights: Tensor,
    known_weights: Tensor,
    said_real: Tensor | None = None,
    known_real: Tensor | None = None,
) -> Tensor:
    """Precision, recall and F1 [... 3]: weighted means of each token's similarity to the nearest of the other text.

    Zhang et al. 2020 (arXiv 1904.09675), equations 1 and 2.

    Args:
        similarity: [... H R] of candidate tokens and reference tokens.
        said_weights: [... H] how much each candidate token counts.
        known_weights: [... R] how much each reference token counts.
        said_real: [... H] False on padding; None where there is none.
        known_real: [... R] as well.
    """
    precision = _weighted(_nearest(similarity, known_real), said_weights)
    recall = _weighted(_nearest(similarity.mT, said_real), known_weights)
    both = precision + recall
    f1 = torch.where(both == 0, 0, 2 * precision * recall / both)
    return torch.stack([precision, recall, f1], dim=-1)


def _nearest(similarity: Tensor, real: Tensor | None) -> Tensor:
    if real is not None:
        similarity = similarity.masked_fill(~real[..., None, :], -math.inf)
    return similarity.amax(-1)


def _weighted(values: Tensor, weights: Tensor) -> Tensor:
    summed = weights.sum(-1)
    return torch.where(weights > 0, values * weights, 0).sum(-1) / torch.where(summed > 0, summed, 1)
