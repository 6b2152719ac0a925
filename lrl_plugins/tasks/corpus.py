"""Answers collected from all ranks and scored together at the end: what tasks' metrics share."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor
from torchmetrics import Metric

from lrl_core.ranks import from_first_rank, merged_over_ranks, rank, world_size

Answers: TypeAlias = dict[str, tuple[str, tuple[str, ...]]]
"""Prompt id -> what was said, and what people said."""
Row = TypeVar("Row")


class Corpus(Metric):
    """Collects answers of all ranks, once per id; the scores are those of the corpus, computed at the end."""

    full_state_update = False
    is_differentiable = False
    higher_is_better = True
    needs_references = True
    """Whether every answer must come with something people said."""

    def __init__(self) -> None:
        # Rows are Python objects, which torchmetrics cannot gather: `compute` does it.
        super().__init__(sync_on_compute=False)
        self._rows: Answers = {}

    def update(self, ids: list[str], candidates: list[str], references: list[tuple[str, ...]]) -> None:
        """Add answers.

        Args:
            ids: The prompt of each answer; of several answers with one id only the first counts, so that the
                repetitions with which samplers fill the last batch of a rank change nothing.
            candidates: The answers.
            references: The human answers to each prompt.
        """
        for name, candidate, own in zip(ids, candidates, references, strict=True):
            if not own and self.needs_references:
                raise ValueError(
                    f"{type(self).__name__} got no references for {name!r}; expected at least one human answer. "
                    "Leave such rows out of the evaluation."
                )
            self._rows.setdefault(name, (candidate, tuple(own)))

    def compute(self) -> dict[str, Tensor]:
        """Scores of the corpus, the same on every rank; empty before any answer has been added."""
        return scored_together(self._rows, self._scores, self)

    def forward(self, ids: list[str], candidates: list[str], references: list[tuple[str, ...]]) -> None:
        """Add answers; a batch on its own is no corpus and has no scores."""
        self.update(ids, candidates, references)

    def reset(self) -> None:
        """Forget all answers."""
        super().reset()
        self._rows = {}

    @abstractmethod
    def _scores(self, rows: Answers) -> dict[str, float]:
        """Scores of the whole corpus."""


class SampledCorpus(Corpus):
    """A corpus whose prompts may have several answers each: what all of them say together, beside the first one's."""

    def __init__(self) -> None:
        super().__init__()
        self._samples: dict[str, list[str]] = {}

    def update(self, ids: list[str], candidates: list[str], references: list[tuple[str, ...]]) -> None:
        super().update(ids, candidates, references)
        for name, candidate in zip(ids, candidates, strict=True):
            self._samples.setdefault(name, []).append(candidate)

    def compute(self) -> dict[str, Tensor]:
        """Scores of the first answers and of all, the same on every rank; empty before any answer has been added."""
        return super().compute() | scored_together(self._samples, self._of_as_many, self)

    def reset(self) -> None:
        super().reset()
        self._samples = {}

    def _of_as_many(self, samples: dict[str, list[str]]) -> dict[str, float]:
        # A prompt that a sampler repeated, to fill a rank's last batch, has been answered again: all have as many.
        fewest = min(map(len, samples.values()))
        return self._sample_scores({name: own[:fewest] for name, own in samples.items()})

    @abstractmethod
    def _sample_scores(self, samples: dict[str, list[str]]) -> dict[str, float]:
        """Scores of all answers, as many to each prompt."""


def mean(scores: list[float]) -> float:
    """The mean of at least one score."""
    return sum(scores) / len(scores)


def scored_together(
    rows: dict[str, Row], scores: Callable[[dict[str, Row]], dict[str, float]], metric: Metric
) -> dict[str, Tensor]:
    """Scores of the rows of all ranks, computed by the first and the same on every one; empty where there is no row.

    Args:
        rows: What this rank collected, by prompt id; of rows of several ranks with one id the first rank's counts.
        scores: Scores of all rows, which come sorted by id.
        metric: Whose rows these are: its device gets the scores, its name stands in errors.
    """
    gathered = merged_over_ranks(rows)
    found = _on_first_rank(lambda: scores(gathered), type(metric).__name__) if gathered else {}
    return {name: torch.tensor(score, device=metric.device) for name, score in found.items()}


def _on_first_rank(compute: Callable[[], dict[str, float]], who: str) -> dict[str, float]:
    """Compute once and tell the other ranks, also when it failed: they would wait for ever."""
    if world_size() == 1:
        return compute()
    told: list[Any] = [None, None]
    if rank() == 0:
        try:
            told[0] = compute()
        except Exception as error:
            told[1] = f"{type(error).__name__}: {error}"
    told = from_first_rank(told)
    if told[1] is not None:
        raise RuntimeError(f"{who} failed on rank 0: {told[1]}. Its log has the details.")
    return told[0]
