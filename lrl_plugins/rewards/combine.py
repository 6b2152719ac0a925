"""Rewards and the maps that rescale them, brought together: what `Sum` and `Guard` share."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lrl_core.types import RewardSignal, Rollout
from lrl_plugins.rewards.normalise import Affine


def combined(
    signals: Mapping[str, RewardSignal], maps: Mapping[str, Affine], weights: Mapping[str, float], rollout: Rollout
) -> RewardSignal:
    """The weighted sum; parts are "<name>", "<name>/normalised" where it is, and "<name>/<part>" of several parts.

    Args:
        signals: What each reward says.
        maps: How some of them are rescaled.
        weights: Factor of each, after its map; 0 leaves it out of the sum.
        rollout: The episodes.
    """
    identity = Affine(torch.ones(()), torch.zeros(()))
    terms = [
        _Term(signal, maps.get(name, identity), weights[name]) for name, signal in signals.items() if weights[name] != 0
    ]
    total = torch.zeros(len(rollout), device=rollout.tokens.device)
    for term in terms:
        total = total + term.total
    return RewardSignal(
        total,
        by_token=_by_token(terms, rollout, ~total.isnan()),
        by_prefix=_by_prefix(terms),
        parts=_parts(signals, maps),
    )


class _Term(NamedTuple):
    """What one reward contributes: weight * map(signal)."""

    signal: RewardSignal
    map: Affine
    weight: float

    @property
    def total(self) -> Float[Tensor, " B"]:
        return self.weight * self.map(self.signal.total)

    def by_token(self) -> Float[Tensor, "B T"]:
        assert self.signal.by_token is not None
        return self.weight * self.map.scale * self.signal.by_token

    def beside_tokens(self) -> Float[Tensor, " B"]:
        """What the map pays beyond the scaled increments: its shift, and what its limits take or give."""
        return self.total - self.weight * self.map.scale * self.signal.total


def _by_token(terms: list[_Term], rollout: Rollout, judged: Bool[Tensor, " B"]) -> Float[Tensor, "B T"] | None:
    """Increments of all terms; what is not spread over tokens stands on the last one. None where no term has any."""
    if all(term.signal.by_token is None for term in terms):
        return None
    by_token = torch.zeros(rollout.tokens.shape, device=rollout.tokens.device)
    at_end = torch.zeros(len(rollout), device=rollout.tokens.device)
    for term in terms:
        if term.signal.by_token is None:
            at_end = at_end + term.total
        else:
            by_token = by_token + term.by_token()
            at_end = at_end + term.beside_tokens()
    steps = torch.arange(rollout.tokens.shape[1], device=rollout.tokens.device)
    by_token = by_token + torch.where(steps == rollout.lengths[:, None] - 1, at_end[:, None], 0)
    return by_token.masked_fill(~judged[:, None], 0)


def _by_prefix(terms: list[_Term]) -> Float[Tensor, "B P"] | None:
    """Worth of every prefix; None unless every term can judge prefixes."""
    worths = [term.weight * term.map(term.signal.by_prefix) for term in terms if term.signal.by_prefix is not None]
    return torch.stack(worths).sum(0) if worths and len(worths) == len(terms) else None


def _parts(signals: Mapping[str, RewardSignal], maps: Mapping[str, Affine]) -> dict[str, Tensor]:
    """Every term raw, normalised where it is, and the components of a term that has several."""
    parts = {}
    for name, signal in signals.items():
        parts[name] = signal.total
        if name in maps:
            parts[f"{name}/normalised"] = maps[name](signal.total)
        if len(signal.parts) > 1:
            parts |= {f"{name}/{inner}": value for inner, value in signal.parts.items()}
    return parts
