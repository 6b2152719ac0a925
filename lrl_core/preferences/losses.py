"""Losses of scores given how somebody ranked the candidates: all leave unchanged what is added to a whole comparison.

Letters: N comparisons, K candidates (filled up to the largest comparison), G tied candidates. `scores` [N K] are real
numbers, `ranks` [N K] count from 0 (the best; equal numbers are a tie), `mask` [N K] is True on real candidates.
"""

from functools import lru_cache, partial
from itertools import combinations
from typing import Literal, NamedTuple, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid

MOST_TIED = 14
"""Candidates that may share a rank above the last one under `plackett_luce`, which looks at all their subsets."""

LossName = Literal["best_of_k", "bradley_terry", "pairwise", "plackett_luce"]


class Losses(NamedTuple):
    """One loss per comparison, and which comparisons say anything."""

    each: Float[Tensor, " N"]
    """The loss, in nats; 0 where a comparison says nothing."""
    says: Bool[Tensor, " N"]
    """False where all candidates are tied, or where the loss cannot use the ranks."""


class PreferenceLoss(Protocol):
    """What every loss of this module is called with."""

    def __call__(self, scores: Float[Tensor, "N K"], ranks: Int[Tensor, "N K"], mask: Bool[Tensor, "N K"]) -> Losses:
        """The losses."""


def best_of_k(scores: Float[Tensor, "N K"], ranks: Int[Tensor, "N K"], mask: Bool[Tensor, "N K"]) -> Losses:
    """Cross-entropy of the softmax over the candidates with the one of rank 0 (Ziegler et al. 2019, eq. 1).

    Only who is best counts. A comparison with several candidates of rank 0, or none, says nothing here.
    Chance level: ln K.

    Args:
        scores: Of the candidates.
        ranks: 0 for the best.
        mask: Real candidates.
    """
    best = (ranks == 0) & mask
    says = (best.sum(1) == 1) & (mask.sum(1) > 1)
    logprobs = scores.masked_fill(~mask, -torch.inf).log_softmax(1)
    chosen = logprobs.gather(1, best.long().argmax(1, keepdim=True)).squeeze(1)
    return Losses(torch.where(says, -chosen, 0), says)


def pairwise(
    scores: Float[Tensor, "N K"],
    ranks: Int[Tensor, "N K"],
    mask: Bool[Tensor, "N K"],
    margin: float = 0.0,
    smoothing: float = 0.0,
) -> Losses:
    """Mean of -log sigma(r_w - r_l - margin) over all pairs of unequal rank (Ouyang et al. 2022, eq. 1).

    The pairs of one comparison are one element, so that long rankings do not outvote short ones; ties are dropped.
    Chance level: ln 2.

    Args:
        scores: Of the candidates.
        ranks: 0 for the best.
        mask: Real candidates.
        margin: By how much the better score should be higher, in units of the score.
        smoothing: Share of the pairs whose label is taken to be wrong, in [0, 0.5).
    """
    pairs = better(ranks, mask)
    apart = scores[:, :, None] - scores[:, None, :] - margin
    each = -(1 - smoothing) * logsigmoid(apart)
    if smoothing:
        each = each - smoothing * logsigmoid(-apart)
    count = pairs.sum((1, 2))
    mean = torch.where(pairs, each, 0).sum((1, 2)) / count.clamp(min=1)
    return Losses(mean, count > 0)


def bradley_terry(
    scores: Float[Tensor, "N K"],
    ranks: Int[Tensor, "N K"],
    mask: Bool[Tensor, "N K"],
    margin: float = 0.0,
    smoothing: float = 0.0,
) -> Losses:
    """-log sigma(r_w - r_l - margin) of comparisons of two (Bradley and Terry 1952; Stiennon et al. 2020, eq. 1).

    Args:
        scores: Of the candidates.
        ranks: 0 for the better one.
        mask: Real candidates, at most two per comparison.
        margin: By how much the better score should be higher, in units of the score.
        smoothing: Share of the comparisons whose label is taken to be wrong, in [0, 0.5).
    """
    most = int(mask.sum(1).max()) if len(mask) else 0
    if most > 2:
        raise ValueError(
            f"bradley_terry got a comparison of {most} candidates; expected two each. Use pairwise (all pairs of a "
            "ranking), plackett_luce (the whole ranking) or best_of_k (who is best)."
        )
    return pairwise(scores, ranks, mask, margin, smoothing)


def plackett_luce(scores: Float[Tensor, "N K"], ranks: Int[Tensor, "N K"], mask: Bool[Tensor, "N K"]) -> Losses:
    """-log probability of the whole ranking, drawn without replacement from the best down (Plackett 1975).

    Tied candidates have an order that nobody told: the probability is the sum over all their orders, computed over
    their subsets. The last group is what is left over and says nothing. With a single best and all others tied this is
    `best_of_k`; of two candidates it is `bradley_terry`. Chance level of a full ranking: ln K!.

    Args:
        scores: Of the candidates.
        ranks: 0 for the best.
        mask: Real candidates.
    """
    groups: dict[int, list[tuple[int, list[int], list[int]]]] = {}
    for row, (given, real) in enumerate(zip(ranks.tolist(), mask.tolist(), strict=True)):
        for tied, after in _groups(given, real):
            groups.setdefault(len(tied), []).append((row, tied, after))
    each = scores.new_zeros(len(scores))
    says = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    for found in groups.values():
        rows = torch.tensor([row for row, _, _ in found], device=scores.device)
        members = torch.tensor([tied for _, tied, _ in found], device=scores.device)
        left = torch.zeros(len(found), scores.shape[1], dtype=torch.bool)
        for place, (_, _, after) in enumerate(found):
            left[place, after] = True
        after_them = scores[rows].masked_fill(~left.to(scores.device), -torch.inf).logsumexp(1)
        each = each.index_add(0, rows, -drawn_before(scores[rows[:, None], members], after_them))
        says[rows] = True
    return Losses(each, says)


def drawn_before(tied: Float[Tensor, "N G"], rest: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Log-probability that all of `tied` are drawn, in any order, before anything of what is left.

    f(S), the log-probability that the first |S| draws are the set S, follows from the sets that lack one of S: f(S) =
    logsumexp over i in S of f(S - i) + r_i - log(sum of exp r over what is left before i is drawn).

    Args:
        tied: Scores of the candidates that share a rank.
        rest: Logsumexp of the scores of all candidates after them.
    """
    size = tied.shape[1]
    drawn = tied.new_zeros(len(tied), 1)
    for before, without, last in _layers(size):
        undrawn = torch.ones(len(before), size, dtype=torch.bool, device=tied.device)
        for place, members in enumerate(before):
            undrawn[place, list(members)] = False
        waiting = tied[:, None, :].masked_fill(~undrawn, -torch.inf)
        left = torch.cat([waiting, rest[:, None, None].expand(-1, len(before), 1)], dim=2).logsumexp(2)
        drawn = ((drawn - left)[:, without] + tied[:, last]).logsumexp(2)
    return drawn.squeeze(1)


def centring(scores: Float[Tensor, "N K"], ranks: Int[Tensor, "N K"], mask: Bool[Tensor, "N K"]) -> Float[Tensor, " N"]:
    """Mean of (r_w + r_l)^2 over the pairs of unequal rank: keeps scores around 0, where no loss above would.

    Eisenstein et al. 2023 (arXiv 2312.09244), eq. 4.

    Args:
        scores: Of the candidates.
        ranks: 0 for the best.
        mask: Real candidates.
    """
    pairs = better(ranks, mask)
    squares = (scores[:, :, None] + scores[:, None, :]).square()
    return torch.where(pairs, squares, 0).sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)


def better(ranks: Int[Tensor, "N K"], mask: Bool[Tensor, "N K"]) -> Bool[Tensor, "N K K"]:
    """Entry [n, w, l] is True where candidate w was ranked before candidate l.

    Args:
        ranks: 0 for the best.
        mask: Real candidates.
    """
    return (ranks[:, :, None] < ranks[:, None, :]) & mask[:, :, None] & mask[:, None, :]


def loss_of(name: LossName, margin: float = 0.0, smoothing: float = 0.0) -> PreferenceLoss:
    """The loss of this name.

    Args:
        name: One of the four.
        margin: Of `bradley_terry` and `pairwise`.
        smoothing: Of `bradley_terry` and `pairwise`.
    """
    plain: dict[str, PreferenceLoss] = {"best_of_k": best_of_k, "plackett_luce": plackett_luce}
    pairs = {"bradley_terry": bradley_terry, "pairwise": pairwise}
    if name not in plain | pairs:
        raise ValueError(
            f"The preference loss is {name!r}; expected one of {', '.join(sorted(plain | pairs))}. Correct `loss`."
        )
    if name in plain and (margin or smoothing):
        raise ValueError(
            f"The preference loss {name} got margin {margin} and smoothing {smoothing}; expected 0 and 0, for they are "
            "about pairs. Leave them out, or use pairwise."
        )
    if margin < 0 or not 0 <= smoothing < 0.5:
        raise ValueError(
            f"The preference loss {name} got margin {margin} and smoothing {smoothing}; expected a margin >= 0 and a "
            "smoothing in [0, 0.5). Correct them."
        )
    return plain[name] if name in plain else partial(pairs[name], margin=margin, smoothing=smoothing)


def _groups(ranks: list[int], real: list[bool]) -> list[tuple[list[int], list[int]]]:
    """The candidates of each rank but the last, and those after them."""
    found = []
    present = sorted({rank for rank, is_real in zip(ranks, real, strict=True) if is_real})
    for rank in present[:-1]:
        tied = [i for i, own in enumerate(ranks) if real[i] and own == rank]
        if len(tied) > MOST_TIED:
            raise ValueError(
                f"plackett_luce got {len(tied)} candidates that share the rank {rank}; expected at most {MOST_TIED}, "
                "for it sums over all their orders. Use pairwise."
            )
        found.append((tied, [i for i, own in enumerate(ranks) if real[i] and own > rank]))
    return found


@lru_cache(maxsize=MOST_TIED)
def _layers(size: int) -> list[tuple[list[tuple[int, ...]], list[list[int]], list[list[int]]]]:
    """For every size of a subset: the subsets with one fewer, and for each subset which of them lacks which member."""
    layers = []
    for count in range(1, size + 1):
        before = list(combinations(range(size), count - 1))
        place = {members: i for i, members in enumerate(before)}
        subsets = list(combinations(range(size), count))
        without = [[place[tuple(j for j in subset if j != i)] for i in subset] for subset in subsets]
        layers.append((before, without, [list(subset) for subset in subsets]))
    return layers
