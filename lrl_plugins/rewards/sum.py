"""A weighted sum of rewards."""

from collections.abc import Iterable, Mapping

from torch import nn

from lrl_core.interfaces import Reward
from lrl_core.registry import suggest
from lrl_core.scoring import judge
from lrl_core.types import RewardSignal, Rollout
from lrl_plugins.rewards.combine import combined
from lrl_plugins.rewards.normalise import Normaliser


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
        self.comparable = all(part.comparable for part in (*terms.values(), *normalise.values()))
        self.concurrent = not normalise and all(term.concurrent for term in terms.values())
        self.rowwise = all(part.rowwise for part in (*terms.values(), *normalise.values()))

    def score(self, rollout: Rollout) -> RewardSignal:
        """Judge with every term and add up."""
        signals = {name: judge(term, rollout) for name, term in self._rewards().items()}
        maps = {name: self.normalise[name](signals[name].total) for name in self.normalise}
        return combined(signals, maps, self.weights, rollout)

    def _rewards(self) -> dict[str, Reward]:
        return dict(self.terms.items())  # type: ignore[arg-type]


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
