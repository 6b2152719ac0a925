"""What people have judged so far, as lessons of a preference model: the same on every rank."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lrl_core.preferences.comparison import Comparison, Comparisons
from lrl_core.preferences.measures import accuracy, pairs_of
from lrl_core.preferences.reading import RUN
from lrl_core.ranks import from_first_rank, rank, world_size
from lrl_plugins.rewards.pretrained import padded

Found = tuple[int, list[Comparison]]
"""The store's version, and all judgments that count."""


@dataclass
class Labels:
    """Looks into a store of judgments now and then; the first rank looks and tells the others."""

    url: str
    """Of the store."""
    refresh: int
    """Training steps between two looks."""
    least: int
    """Judgments before anything is learnt."""
    held_out: float
    """Share of the questions whose judgments are measured and never learnt."""
    seen: int | None = None
    """The store's version when it was last learnt from; None before."""
    looked: int | None = None
    """Training step of the last look; None before."""
    known: int = 0
    """Judgments that say anything, at the last look that brought new ones."""
    kept: list[Comparison] = field(default_factory=list)
    """The held-out ones, after a look that brought new ones."""

    def look(self, step: int) -> list[Comparison] | None:
        """What to learn from if there is anything new and enough of it; asked again in the same step: None.

        Args:
            step: Training steps before this one.
        """
        if self.looked is not None and step - self.looked < self.refresh:
            return None
        if self.url == RUN:
            raise ValueError(
                "Preference: labels is 'run', but no part of the recipe collects labels in this run; expected the "
                "callback AskForLabels beside it. Add it, or name the URL of a store."
            )
        self.looked = step
        found = from_first_rank(self._news() if rank() == 0 else None)
        if found is None:
            return None
        version, judged = found
        telling = [comparison for comparison in judged if len(set(comparison.ranks)) > 1]
        self.known = len(telling)
        if len(telling) < self.least:
            return None
        self.seen = version
        self.kept = [comparison for comparison in telling if kept_out(comparison, self.held_out)]
        return [comparison for comparison in telling if not kept_out(comparison, self.held_out)]

    def state(self) -> dict[str, Any]:
        """What a resumed run must know."""
        return {"seen": self.seen, "looked": self.looked, "known": self.known}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where a run stopped."""
        self.seen, self.looked, self.known = state["seen"], state["looked"], state["known"]

    def _news(self) -> Found | None:
        from lrl_core.preferences.store import PreferenceStore  # only who reads labels needs a database

        store = PreferenceStore(self.url)
        try:
            version = store.version()
            return None if version == self.seen else (version, store.comparisons())
        finally:
            store.close()


def minibatches(comparisons: list[Comparison], size: int, epochs: int, seed: int) -> Iterator[Comparisons]:
    """This rank's share of each minibatch: as many on every rank, and the same ones whatever the number of ranks.

    Every pass has an order of its own. A last minibatch with fewer comparisons than ranks is left out.

    Args:
        comparisons: The same list on every rank.
        size: Comparisons of a minibatch over all ranks.
        epochs: Passes.
        seed: The same number on every rank.
    """
    for epoch in range(epochs):
        generator = torch.Generator().manual_seed((seed << 16) + epoch)
        order = torch.randperm(len(comparisons), generator=generator).tolist()
        for first in range(0, len(order), size):
            rows = order[first : first + size]
            if len(rows) >= world_size():
                yield Comparisons(tuple(comparisons[row] for row in rows[rank() :: world_size()]))


def ranks_of(lesson: Comparisons, device: torch.device) -> tuple[Int[Tensor, "N K"], Bool[Tensor, "N K"]]:
    """Ranks of all candidates, filled up with 0 to the largest comparison, and which candidates are real.

    Args:
        lesson: N comparisons.
        device: Where they are wanted.
    """
    ranks = torch.tensor(padded([list(item.ranks) for item in lesson.items], -1), device=device)
    return ranks.clamp(min=0), ranks >= 0


def accuracy_of(lesson: Comparisons, scores: Float[Tensor, " M"]) -> float:
    """Share of pairs whose better candidate has the higher score.

    Args:
        lesson: Comparisons.
        scores: Of all their candidates, one comparison after the other.
    """
    ranks, mask = ranks_of(lesson, scores.device)
    filled = scores.new_zeros(mask.shape).index_put(mask.nonzero(as_tuple=True), scores)
    return float(accuracy(pairs_of(filled, ranks, mask).margin))


def kept_out(comparison: Comparison, share: float) -> bool:
    """Whether a judgment is held out: all judgments of a question are, or none, in every run alike.

    Args:
        comparison: Whose id is "question/judgment"; one without an id is told by its prompt.
        share: Of the questions, in [0, 1).
    """
    question = comparison.id.rpartition("/")[0] or comparison.id or comparison.prompt
    digest = hashlib.blake2b(question.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") < share * 2**64
