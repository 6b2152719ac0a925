"""Several objectives at once."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lrl_core.interfaces import Objective
from lrl_core.types import Experience, Loss, PolicyOutput, Rollout


class Sum(Objective):
    """The weighted sum of named objectives; each keeps its own denominator.

    Args:
        terms: The objectives by name.
        weights: Factor of each term, by the same names; 1 where none is given.
    """

    def __init__(self, terms: dict[str, Objective], weights: dict[str, float] | None = None) -> None:
        super().__init__()
        unknown = sorted(set(weights or {}) - set(terms))
        if unknown or not terms:
            raise ValueError(f"Sum: weights name {unknown}, which are no terms; expected names among {sorted(terms)}.")
        self.terms = nn.ModuleDict(terms)
        self.weights = {name: (weights or {}).get(name, 1.0) for name in terms}
        self.samples = any(term.samples for term in terms.values())
        self.judges = any(term.samples and term.judges for term in terms.values())
        self.compares = any(term.samples and term.compares for term in terms.values())
        self.compares_answers = any(term.compares_answers for term in terms.values())

    def count(self, experience: Experience) -> Tensor:
        return torch.cat([term.count(experience).reshape(-1) for term in self._objectives().values()])

    def loss(self, policy: Callable[[Rollout], PolicyOutput], experience: Experience) -> Loss:
        losses = {name: term.loss(policy, experience) for name, term in self._objectives().items()}
        totals = [self.weights[name] * loss.total.reshape(-1) for name, loss in losses.items()]
        metrics = {f"{name}/{key}": value for name, loss in losses.items() for key, value in loss.metrics.items()}
        return Loss(torch.cat(totals), metrics)

    def _objectives(self) -> dict[str, Objective]:
        return {name: term for name, term in self.terms.items() if isinstance(term, Objective)}
