"""How well scores agree with what people prefer: on pairs, as probabilities, and as whole rankings.

Letters: N comparisons, K candidates (filled up to the largest comparison), M pairs.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid
from torchmetrics import Metric

from lrl_core.preferences.losses import better
from lrl_core.ranks import merged_over_ranks

BINS = 10
"""Equal bins of [0.5, 1], in which the calibration error compares what is claimed with what holds."""


class Pairs(NamedTuple):
    """Every pair of unequal rank once."""

    margin: Float[Tensor, " M"]
    """Score of the better candidate minus that of the worse one."""
    comparison: Int[Tensor, " M"]
    """Which comparison the pair is of."""


def pairs_of(scores: Float[Tensor, "N K"], ranks: Int[Tensor, "N K"], mask: Bool[Tensor, "N K"]) -> Pairs:
    """The pairs that somebody told apart.

    Args:
        scores: Of the candidates.
        ranks: 0 for the best; equal numbers are a tie.
        mask: Real candidates.
    """
    row, best, worst = better(ranks, mask).nonzero(as_tuple=True)
    return Pairs(scores[row, best] - scores[row, worst], row)


def accuracy(margin: Float[Tensor, " M"]) -> Float[Tensor, ""]:
    """Share of pairs whose better candidate has the higher score; equal scores count one half."""
    return ((margin > 0).double() + 0.5 * (margin == 0).double()).mean()


def log_loss(margin: Float[Tensor, " M"]) -> Float[Tensor, ""]:
    """Mean of -log sigma(r_w - r_l), in nats; ln 2 where the scores say nothing."""
    return -logsigmoid(margin.double()).mean()


def brier(margin: Float[Tensor, " M"]) -> Float[Tensor, ""]:
    """Mean squared distance of sigma(r_w - r_l) from 1; 0.25 where the scores say nothing (Brier 1950)."""
    return (1 - torch.sigmoid(margin.double())).square().mean()


def calibration_error(margin: Float[Tensor, " M"], bins: int = BINS) -> Float[Tensor, ""]:
    """Expected calibration error of sigma(|r_w - r_l|), the claimed probability that the favourite is the better one.

    Mean over equal bins of [0.5, 1] of |share of right favourites - mean claim|, weighted by pairs (Guo et al. 2017,
    eq. 3). Equal scores claim one half and are right half of the time.

    Args:
        margin: Score of the better candidate minus that of the worse one.
        bins: How many.
    """
    margin = margin.double()
    claimed = torch.sigmoid(margin.abs())
    right = (margin > 0).double() + 0.5 * (margin == 0).double()
    where = ((claimed - 0.5) * 2 * bins).long().clamp(max=bins - 1)
    gap = torch.zeros(bins, dtype=torch.double, device=margin.device).index_add(0, where, right - claimed)
    return gap.abs().sum() / len(margin)


def kendall_tau(
    scores: Float[Tensor, "N K"], ranks: Int[Tensor, "N K"], mask: Bool[Tensor, "N K"]
) -> Float[Tensor, " N"]:
    """Kendall's tau-b between scores and ranking, -1 to 1; 0 where all scores are equal, NaN where all ranks are.

    (concordant - discordant) / sqrt(pairs untied in the scores x pairs untied in the ranks) (Kendall 1945).

    Args:
        scores: Of the candidates.
        ranks: 0 for the best.
        mask: Real candidates.
    """
    real = mask[:, :, None] & mask[:, None, :]
    by_score = torch.where(real, (scores[:, :, None] - scores[:, None, :]).sign(), 0).double()
    by_rank = torch.where(real, (ranks[:, None, :] - ranks[:, :, None]).sign(), 0).double()
    agreed = (by_score * by_rank).sum((1, 2))
    untied_scores, untied_ranks = by_score.abs().sum((1, 2)), by_rank.abs().sum((1, 2))
    tau = torch.where(untied_scores > 0, agreed / (untied_scores * untied_ranks).sqrt(), 0)
    return torch.where(untied_ranks > 0, tau, torch.nan)


Row = tuple[list[float], list[int]]
"""Scores and ranks of one comparison's candidates."""


class PreferenceMetrics(Metric):
    """Accuracy, margin, log_loss, brier and calibration_error over all pairs; kendall_tau over longer rankings.

    Every pair of unequal rank has one vote. kendall_tau is the mean tau-b of the comparisons of more than two
    candidates, and missing where there are none. Comparisons of all ranks are measured together, each once.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True

    def __init__(self) -> None:
        # Rows are Python objects, which torchmetrics cannot gather: `compute` does it.
        super().__init__(sync_on_compute=False)
        self._rows: dict[str, Row] = {}

    def update(
        self, ids: list[str], scores: Float[Tensor, "N K"], ranks: Int[Tensor, "N K"], mask: Bool[Tensor, "N K"]
    ) -> None:
        """Add comparisons.

        Args:
            ids: One per comparison; of several with one id only the first counts, so that the repetitions with which
                samplers fill the last batch of a rank change nothing.
            scores: Of the candidates.
            ranks: 0 for the best.
            mask: Real candidates.
        """
        lines = zip(ids, scores.float().tolist(), ranks.tolist(), mask.tolist(), strict=True)
        for name, line, given, real in lines:
            own = [(score, rank) for score, rank, is_real in zip(line, given, real, strict=True) if is_real]
            self._rows.setdefault(name, ([score for score, _ in own], [rank for _, rank in own]))

    def forward(self, *arguments: object) -> None:
        """Add comparisons; the measures are those of all of them."""
        self.update(*arguments)  # type: ignore[arg-type]

    def compute(self) -> dict[str, Tensor]:
        """The measures, the same on every rank; empty where no two candidates were told apart."""
        rows = merged_over_ranks(self._rows)
        found = measured(list(rows.values())) if rows else {}
        return {name: value.float().to(self.device) for name, value in found.items()}

    def reset(self) -> None:
        """Forget all comparisons."""
        super().reset()
        self._rows = {}


def measured(rows: list[Row]) -> dict[str, Float[Tensor, ""]]:
    """All measures of these comparisons, by name.

    Args:
        rows: Scores and ranks of each.
    """
    longest = max(len(line) for line, _ in rows)
    scores = torch.tensor([line + [0.0] * (longest - len(line)) for line, _ in rows], dtype=torch.double)
    ranks = torch.tensor([given + [0] * (longest - len(given)) for _, given in rows])
    counts = torch.tensor([len(line) for line, _ in rows])
    mask = torch.arange(longest) < counts[:, None]
    margin = pairs_of(scores, ranks, mask).margin
    if not len(margin):
        return {}
    found = {
        "accuracy": accuracy(margin),
        "margin": margin.mean(),
        "log_loss": log_loss(margin),
        "brier": brier(margin),
        "calibration_error": calibration_error(margin),
    }
    tau = kendall_tau(scores, ranks, mask)[counts > 2]
    return found if tau.isnan().all() else found | {"kendall_tau": tau.nanmean()}
