"""Whether labellers agree: how often they choose the same answer, and how much of that is more than chance."""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from itertools import chain
from typing import NamedTuple


class Agreement(NamedTuple):
    """How alike labellers choose."""

    questions: int
    """Questions that two or more have judged; all numbers are about these."""
    same: float | None
    """Share of them on which all chose the same best answer (or the same tie), 0 to 1; None without questions."""
    alpha: float | None
    """Krippendorff's alpha of the choices: 1 = always the same, 0 = as by chance, less = opposed; None where all
    choices of all questions are the same position, so that chance has no meaning."""


def agreement(judgments: Iterable[tuple[int, str, Sequence[int]]]) -> Agreement:
    """How alike labellers choose the best answer.

    Chance is that of two choices drawn from all of them, by position among the candidates: it means what it should
    where the stored order of candidates is arbitrary, as it is when a policy drew them.

    Args:
        judgments: Question, labeller and ranks (0 = best, equal = tie) of every judgment that counts; of two by one
            labeller about one question the later one is taken.
    """
    chosen: dict[int, dict[str, Hashable]] = {}
    for question, who, ranks in judgments:
        best = tuple(i for i, rank in enumerate(ranks) if rank == min(ranks))
        chosen.setdefault(question, {})[who] = best
    units = [list(by_labeller.values()) for by_labeller in chosen.values() if len(by_labeller) > 1]
    if not units:
        return Agreement(0, None, None)
    return Agreement(len(units), sum(len(set(unit)) == 1 for unit in units) / len(units), krippendorff_alpha(units))


def krippendorff_alpha(units: Sequence[Sequence[Hashable]]) -> float | None:
    """Krippendorff's alpha of nominal values: 1 - observed / expected disagreement; None where none is expected.

    Krippendorff, Content Analysis (2004), section 11.3. With n values in all and m_u of them about unit u, observed
    disagreement is the sum over units of (ordered pairs that differ) / (m_u - 1), divided by n; expected disagreement
    is (ordered pairs of all values that differ) / (n (n - 1)).

    Args:
        units: What observers said about each unit, in any order; units with one value say nothing.
    """
    paired = [unit for unit in units if len(unit) > 1]
    values = Counter(chain.from_iterable(paired))
    total = values.total()
    expected = _differing(values)
    if not expected:
        return None
    observed = sum(_differing(Counter(unit)) / (len(unit) - 1) for unit in paired)
    return 1 - observed * (total - 1) / expected


def _differing(counts: "Counter[Hashable]") -> int:
    """Ordered pairs of different values."""
    return counts.total() ** 2 - sum(count**2 for count in counts.values())
