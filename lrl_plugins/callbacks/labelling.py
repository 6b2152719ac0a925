"""How many questions are due, and what a scripted labeller answers to one: pure functions."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch

Answer = Literal["best", "ranking"]
"""best: only the best candidate is named; ranking: all of them are put in order."""
ANSWERS: tuple[str, ...] = get_args(Answer)


def due(before: int, total: int, progress: float) -> int:
    """Questions that should have been asked by now: before + (total - before) (1 - (1 - progress)^2).

    The rate falls linearly to 0 at the end, because late answers teach little (Ziegler et al. 2019, arXiv 1909.08593,
    section 2.3).

    Args:
        before: Asked before the policy moves.
        total: Asked in the whole run; as large as `before` for the offline variant.
        progress: Share of the reinforcement phase that is over, in [0, 1].
    """
    return before + int((total - before) * (1 - (1 - progress) ** 2))


def ranks_of(
    scores: Sequence[float], answer: Answer, tie: float, temperature: float, generator: torch.Generator
) -> tuple[int, ...] | None:
    """The judgment of somebody who sees these scores: 0 for the best, equal numbers for a tie; None: cannot judge.

    With a temperature the order is drawn: the first with the probabilities softmax(scores / temperature), the second
    alike among the others, and so on (Plackett 1975, Luce 1959). `best` gives 1 to all but one candidate, drawn evenly
    where several are as good: it is a forced choice.

    Args:
        scores: One per candidate; a NaN among them makes the question one that cannot be judged.
        answer: What is told of the order.
        tie: Candidates whose (drawn) scores are no further than this below the best of them share its rank, >= 0.
        temperature: Of the draw; 0 for none.
        generator: Of the draw.
    """
    seen = torch.tensor(scores, dtype=torch.float64)
    if bool(seen.isnan().any()):
        return None
    if temperature > 0:  # the largest of scores / temperature + Gumbel noise is a draw from their softmax
        noise = -torch.empty_like(seen).exponential_(generator=generator).log()
        seen = seen + temperature * noise
    if answer == "best":
        best = (seen >= seen.max() - tie).double()
        chosen = int(torch.multinomial(best, 1, generator=generator))
        return tuple(int(i != chosen) for i in range(len(scores)))
    return _ranking(seen.tolist(), tie)


def _ranking(scores: list[float], tie: float) -> tuple[int, ...]:
    ranks = [0] * len(scores)
    order = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)
    rank, leader = 0, scores[order[0]]
    for i in order:
        if scores[i] < leader - tie:
            rank, leader = rank + 1, scores[i]
        ranks[i] = rank
    return tuple(ranks)
