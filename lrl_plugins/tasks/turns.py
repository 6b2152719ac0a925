"""Which of several human answers a prompt learns from in which epoch."""

import random
from collections.abc import Sequence


def in_turn(texts: Sequence[str], epoch: int, count: int | None, seed: str) -> list[str]:
    """The texts of one epoch: they take turns in an order of the prompt's own, so that all are seen.

    Args:
        texts: All there are.
        epoch: Counts from 0.
        count: How many in one epoch, at most all; None = the first one, in every epoch.
        seed: Of the order; another one for every prompt.
    """
    if count is None:
        return list(texts[:1])
    order = list(texts)
    random.Random(seed).shuffle(order)
    start = epoch * count
    return [order[(start + i) % len(order)] for i in range(min(count, len(order)))]
