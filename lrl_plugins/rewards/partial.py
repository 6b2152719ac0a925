"""Signals of a batch that was judged only in part."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lrl_core.types import RewardSignal, Rollout


def unjudged(rollout: Rollout) -> RewardSignal:
    """NaN for every episode."""
    return RewardSignal(torch.full((len(rollout),), torch.nan, device=rollout.tokens.device))


def from_rows(rollout: Rollout, signals: Sequence[RewardSignal | None]) -> RewardSignal:
    """One signal of signals of single episodes; None, of an episode that could not be judged, becomes NaN.

    Args:
        rollout: The episodes, as wide as those that were judged.
        signals: One of each episode.
    """
    judged = [signal for signal in signals if signal is not None]
    if not judged:
        return unjudged(rollout)
    totals = [None if signal is None else signal.total for signal in signals]
    tokens = [None if signal is None else signal.by_token for signal in signals]
    prefixes = [None if signal is None else signal.by_prefix for signal in signals]
    names = dict.fromkeys(name for signal in judged for name in signal.parts)
    return RewardSignal(
        _stacked(totals, torch.nan),
        by_token=_stacked(tokens, 0.0) if all(signal.by_token is not None for signal in judged) else None,
        by_prefix=_stacked(prefixes, 0.0) if all(signal.by_prefix is not None for signal in judged) else None,
        parts={
            name: _stacked([None if s is None else s.parts.get(name) for s in signals], torch.nan) for name in names
        },
    )


def _stacked(rows: Sequence[Tensor | None], fill: float) -> Tensor:
    """The rows under each other; None becomes a row of `fill`."""
    like = next(row for row in rows if row is not None)
    return torch.cat([torch.full_like(like, fill) if row is None else row for row in rows])
