"""Where ranked answers come from: what every source gives, JSON Lines, and the labels that people gave on a page."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lrl_plugins.tasks.files import json_lines
from lrl_plugins.tasks.text.sources import Example, shared_out, texts_of


@dataclass(frozen=True)
class Ranked:
    """One prompt, its candidate answers, and which of them somebody likes better."""

    id: str
    """Its name in logs and metrics, unique in its split."""
    prompt: str
    """What is asked, before any template."""
    candidates: tuple[str, ...]
    """The answers; one where nobody compared, as in plain text."""
    ranks: tuple[int, ...]
    """Of each answer, 0 the best; equal numbers are a tie."""
    columns: dict[str, Any] = field(default_factory=dict)
    """The row as loaded, for rewards and templates that want a column."""

    @property
    def order(self) -> list[int]:
        """The candidates' numbers, best first, ties as they stand."""
        return sorted(range(len(self.ranks)), key=self.ranks.__getitem__)

    @property
    def best(self) -> tuple[str, ...]:
        """The candidates that nobody likes another one better than."""
        return tuple(text for text, rank in zip(self.candidates, self.ranks, strict=True) if rank == min(self.ranks))

    @property
    def example(self) -> Example:
        """The prompt with its best answers, for a layout to word."""
        return Example(self.id, self.prompt, self.best, self.columns)


class PreferenceSource(ABC):
    """A place that ranked answers come from."""

    @abstractmethod
    def splits(self) -> dict[str, list[Ranked]]:
        """The comparisons of "train", "val" and, where there are some, "test". Read anew at every call."""

    def worth(self, text: str) -> float | None:
        """How good an answer truly is, in a world that is made up; None where only people could say. Default: None."""
        return None


def dense_ranks(scores: Sequence[float]) -> tuple[int, ...]:
    """Ranks 0, 1, 2, ... without gaps, the smallest score first; equal scores are a tie."""
    places = {score: rank for rank, score in enumerate(sorted(set(scores)))}
    return tuple(places[score] for score in scores)


def from_files(
    who: str,
    files: dict[str, str | None],
    held_out: float,
    read: Callable[[str], Iterable[Ranked]],
    same: Callable[[Ranked], str],
) -> dict[str, list[Ranked]]:
    """The comparisons of each split, one file each or shared out between the splits that have none of their own.

    Args:
        who: The source, for messages.
        files: Paths of train, val and test. Without val, `train` gives val and (where test has no file either) test.
        held_out: Share of the rows of `train` that each split without a file becomes.
        read: The rows of a file.
        same: Rows for which this gives the same text are never parted.
    """
    if not 0 < held_out < 0.5:
        raise ValueError(f"{who}: got held_out {held_out}, expected a share between 0 and 0.5. Correct it.")
    homeless = [] if files["val"] else ["val"] if files["test"] else ["val", "test"]
    found: dict[str, list[Ranked]] = {split: [] for split, path in files.items() if path or split in homeless}
    for split, path in files.items():
        if path is None:
            continue
        sharing = ["train", *homeless] if split == "train" else [split]
        for row in read(path):
            found[shared_out(same(row), sharing, held_out) if len(sharing) > 1 else split].append(row)
    return found


class RankedJsonLines(PreferenceSource):
    """Ranked answers in JSON Lines (.jsonl or .jsonl.gz), one object per line.

    A line holds a prompt with either its candidates and their ranks, `{"prompt", "candidates": [...], "ranks": [...]}`,
    or an answer that was chosen and one or several that were not, `{"prompt", "chosen", "rejected"}`. No prompt is in
    two splits where rows are held out.

    Args:
        train: File of the training rows, or of all rows.
        val: File of the validation rows; None = rows of `train`, held out by the hash of their prompt.
        test: File of the test rows; None = as val where val is None too, else no test rows.
        prompt_field: Field with the prompt.
        candidates_field: Field with the list of answers; a line without it is read as chosen and rejected.
        ranks_field: Field with one number per answer, the smallest for the best; equal numbers are a tie.
        chosen_field: Field with the answer that was chosen.
        rejected_field: Field with the answer that was not, or a list of them.
        id_field: Field with the row's id; None = file name and line number.
        held_out: Share of the rows of `train` that become val, and as large a one test, where they have no file.
    """

    def __init__(
        self,
        train: str,
        val: str | None = None,
        test: str | None = None,
        prompt_field: str = "prompt",
        candidates_field: str = "candidates",
        ranks_field: str = "ranks",
        chosen_field: str = "chosen",
        rejected_field: str = "rejected",
        id_field: str | None = None,
        held_out: float = 0.1,
    ) -> None:
        self.files = {"train": train, "val": val, "test": test}
        self.prompt_field, self.id_field, self.held_out = prompt_field, id_field, held_out
        self.ranking, self.choice = (candidates_field, ranks_field), (chosen_field, rejected_field)

    def splits(self) -> dict[str, list[Ranked]]:
        return from_files("RankedJsonLines", self.files, self.held_out, self._rows, lambda row: row.prompt)

    def _rows(self, file: str) -> Iterator[Ranked]:
        stem = Path(file).name.partition(".")[0]
        for number, row in json_lines(file, "RankedJsonLines"):
            where = f"line {number} of {file}"
            candidates, ranks = self._answers(row, where)
            name = f"{stem}-{number}" if self.id_field is None else str(_field(row, self.id_field, where))
            prompt = " ".join(texts_of(_field(row, self.prompt_field, where)))
            yield Ranked(name, prompt, candidates, ranks, row)

    def _answers(self, row: dict[str, Any], where: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
        listed, ranked = self.ranking
        if listed not in row:
            chosen, rejected = (texts_of(_field(row, name, where)) for name in self.choice)
            return (*chosen, *rejected), (0,) * len(chosen) + (1,) * len(rejected)
        candidates, ranks = texts_of(row[listed]), _field(row, ranked, where)
        numbers = isinstance(ranks, list) and all(isinstance(rank, (int, float)) for rank in ranks)
        if not numbers or len(ranks) != len(candidates):
            raise ValueError(
                f"RankedJsonLines: got {len(candidates)} {listed} and the {ranked} {ranks} in {where}, expected one "
                "number for each, the smallest for the best. Correct the line."
            )
        return tuple(candidates), dense_ranks(ranks)


def _field(row: dict[str, Any], name: str, where: str) -> Any:
    if name not in row:
        raise ValueError(
            f"RankedJsonLines: got no field {name!r} in {where}, expected one among its fields {', '.join(row)}. Set "
            "prompt_field, and candidates_field with ranks_field or chosen_field with rejected_field, to what the "
            "data have."
        )
    return row[name]


class StoredLabels(PreferenceSource):
    """The comparisons that people made while or before a run, from a data base of labels (`lrl label`).

    Every judgment that was neither skipped nor withdrawn is one; the same question judged by two people is two. They
    are read once, when the run begins. Of a prompt all judgments are in the same split.

    Args:
        url: The data base: `sqlite:///labels.db`, another SQLAlchemy URL, or a bare path.
        held_out: Share of the prompts that become val; there is no test.
        until: Highest judgment id to read, so that a later run sees the same labels; None = all there are.
    """

    def __init__(self, url: str, held_out: float = 0.1, until: int | None = None) -> None:
        if not 0 < held_out < 1:
            raise ValueError(f"StoredLabels: got held_out {held_out}, expected a share between 0 and 1. Correct it.")
        self.url, self.held_out, self.until = url, held_out, until

    def splits(self) -> dict[str, list[Ranked]]:
        from lrl_core.preferences.store import PreferenceStore

        store = PreferenceStore(self.url)
        try:
            judged = store.comparisons(self.until)
        finally:
            store.close()
        found: dict[str, list[Ranked]] = {"train": [], "val": []}
        for item in judged:
            split = shared_out(item.prompt, ["train", "val"], self.held_out)
            found[split].append(Ranked(item.id, item.prompt, item.candidates, item.ranks))
        return found
