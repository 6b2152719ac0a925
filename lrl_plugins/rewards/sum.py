"""A weighted sum of rewards."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lrl_core.interfaces import Reward
from lrl_core.registry import suggest
from lrl_core.scoring import judge
from lrl_core.types import RewardSignal, Rollout
from lrl_plugins.rewards.normalise import Affine, Normaliser


class Sum(Reward):
    """Adds up several rewards, each with a name, a weight and, if wanted, a normaliser.

    An episode that a term with a weight cannot judge is not judged at all. Raw and normalised terms are logged under
    "<term>" and "<term>/normalised".

    Args:
        terms: The rewards by name.
        weights: Factor of each term, after its normaliser; 1 where not given. A term with weight 0 is only logged.
        normalise: Normaliser of each term; none where not given.
    """

    def __init__(
        self,
        terms: dict[str, Reward],
        weights: dict[str, float] | None = None,
        normalise: dict[str, Normaliser] | None = None,
    ) -> None:
        super().__init__()
        weights, normalise = weights or {}, normalise or {}
        if not terms:
            raise ValueError("Sum got no terms; expected at least one. Give terms: {name: reward}.")
        _refuse_unknown("weights", weights, terms)
        _refuse_unknown("normalise", normalise, terms)
        self.terms = _module_dict("terms", terms)
        self.normalise = _module_dict("normalise", normalise)
        self.weights = {name: float(weights.get(name, 1)) for name in terms}
        self.comparable = not normalise and all(term.comparable for term in terms.values())

    def score(self, rollout: Rollout) -> RewardSignal:
        """Judge with every term and add up."""
        signals = {name: judge(term, rollout) for name, term in self._rewards().items()}
        maps = {name: self.normalise[name](signals[name].total) for name in self.normalise}
        identity = Affine(torch.ones(()), torch.zeros(()))
        weighted = [
            _Term(signal, maps.get(name, identity), self.weights[name])
            for name, signal in signals.items()
            if self.weights[name] != 0
        ]
        total = torch.zeros(len(rollout), device=rollout.tokens.device)
        for term in weighted:
            total = total + term.total
        judged = ~total.isnan()
        return RewardSignal(
            total,
            by_token=_by_token(weighted, rollout, judged),
            by_prefix=_by_prefix(weighted),
            parts=_parts(signals, maps),
        )

    def _rewards(self) -> dict[str, Reward]:
        return dict(self.terms.items())  # type: ignore[arg-type]


class _Term(NamedTuple):
    """What one reward contributes: weight * (scale * signal + shift)."""

    signal: RewardSignal
    map: Affine
    weight: float

    @property
    def scale(self) -> Tensor:
        return self.weight * self.map.scale

    @property
    def shift(self) -> Tensor:
        return self.weight * self.map.shift

    @property
    def total(self) -> Float[Tensor, " B"]:
        return self.scale * self.signal.total + self.shift


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
            by_token = by_token + term.scale * term.signal.by_token
            at_end = at_end + term.shift
    steps = torch.arange(rollout.tokens.shape[1], device=rollout.tokens.device)
    by_token = by_token + torch.where(steps == rollout.lengths[:, None] - 1, at_end[:, None], 0)
    return by_token.masked_fill(~judged[:, None], 0)


def _by_prefix(terms: list[_Term]) -> Float[Tensor, "B P"] | None:
    """Worth of every prefix; None unless every term can judge prefixes."""
    worths = [term.scale * term.signal.by_prefix + term.shift for term in terms if term.signal.by_prefix is not None]
    return torch.stack(worths).sum(0) if worths and len(worths) == len(terms) else None


def _parts(signals: dict[str, RewardSignal], maps: dict[str, Affine]) -> dict[str, Tensor]:
    """Every term raw, normalised where it is, and the components of a term that has several."""
    parts = {}
    for name, signal in signals.items():
        parts[name] = signal.total
        if name in maps:
            parts[f"{name}/normalised"] = maps[name].scale * signal.total + maps[name].shift
        if len(signal.parts) > 1:
            parts |= {f"{name}/{inner}": value for inner, value in signal.parts.items()}
    return parts


def _module_dict(argument: str, modules: Mapping[str, nn.Module]) -> nn.ModuleDict:
    taken = [name for name in modules if not name or "." in name or "/" in name or name in dir(nn.ModuleDict)]
    if taken:
        raise ValueError(
            f"Sum: {argument} has the name {taken[0]!r}; expected a name without '.' and '/' that is no attribute of a "
            f"ModuleDict. Rename the term."
        )
    return nn.ModuleDict(modules)


def _refuse_unknown(argument: str, given: Iterable[str], terms: Iterable[str]) -> None:
    known = list(terms)
    for name in given:
        if name not in known:
            raise ValueError(
                f"Sum: {argument} names {name!r}; expected one of the terms {', '.join(known)}. {suggest(name, known)}"
                f"Correct {argument}, or add the term."
            )
