"""Where prompts and human answers come from: one class per file layout, all giving the same three lists."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lrl_plugins.tasks.files import SPLITS, json_lines, place, read_text


@dataclass(frozen=True)
class Example:
    """One prompt and what people answered."""

    id: str
    """Its name in logs and metrics, unique in its split."""
    prompt: str
    """What is asked, before any template."""
    references: tuple[str, ...]
    """The human answers; () where there are none."""
    columns: dict[str, Any] = field(default_factory=dict)
    """The row as loaded, for rewards and templates that want a column."""


class TextSource(ABC):
    """A place that prompts come from."""

    @abstractmethod
    def splits(self) -> dict[str, list[Example]]:
        """The examples of "train", "val" and, where there are some, "test". Read anew at every call."""


class Fields:
    """Which fields of a record are the prompt and the answers.

    Args:
        who: The source that reads, for messages.
        prompt: Field with the prompt: a text, a number, a table of names and values, or a list of those.
        references: Fields with answers, each a text or a list of texts; empty ones are passed over.
        id: Field with the id; None = the number of the record.
        prompt_texts: How many entries of a list make the prompt; the rest are answers where `references` names the
            field too.
    """

    def __init__(self, who: str, prompt: str, references: list[str], id: str | None, prompt_texts: int) -> None:
        self.who, self.prompt, self.references, self.id, self.prompt_texts = who, prompt, references, id, prompt_texts
        if prompt_texts < 1:
            raise ValueError(f"{who}: got prompt_texts {prompt_texts}, expected at least 1. Correct it in the recipe.")

    def example(self, record: dict[str, Any], name: str, where: str) -> Example:
        """One record as an example.

        Args:
            record: Field names and values.
            name: Its id where no field holds one.
            where: Where it stands, for messages.
        """
        asked = self._get(record, self.prompt, where)
        several = isinstance(asked, (list, tuple))
        prompt = " ".join(texts_of(asked)[: self.prompt_texts if several else None])
        answers: list[str] = []
        for reference in self.references:
            own = texts_of(self._get(record, reference, where))
            answers += own[self.prompt_texts :] if several and reference == self.prompt else own
        name = name if self.id is None else str(self._get(record, self.id, where))
        return Example(name, prompt, tuple(text for text in answers if text.strip()), record)

    def _get(self, record: dict[str, Any], name: str, where: str) -> Any:
        if name not in record:
            raise ValueError(
                f"{self.who}: got no field {name!r} in {where}, expected one among its fields {', '.join(record)}. "
                "Set prompt_field, references_fields and id_field to what the data have."
            )
        return record[name]


def texts_of(value: Any) -> list[str]:
    """A field's texts: a list gives several, a table one line of `name[value]`, nothing none."""
    if value is None:
        return []
    if isinstance(value, dict):
        return [", ".join(f"{name}[{' '.join(texts_of(entry))}]" for name, entry in value.items())]
    if isinstance(value, (list, tuple)):
        return [text for entry in value for text in texts_of(entry)]
    return [str(value)]


class JsonLines(TextSource):
    """Prompts and answers in JSON Lines (.jsonl or .jsonl.gz), one object per line.

    One file per split, or one file with a split in each row, or rows held out by the hash of their id: splits that
    name the same file share its rows out, always in the same way.

    Args:
        train: File of the training rows, or of all rows.
        val: File of the validation rows; None = the rows of `train` that split_field or held_out sets apart.
        test: File of the test rows; None = as val where val is None too, else no test rows.
        prompt_field: Field with the prompt: a text, a table (it becomes `name[value], ...`) or a list of texts.
        references_fields: Fields with human answers, each a text or a list of texts; empty ones are passed over, and
            [] means that there are no answers. None = ["references"].
        prompt_texts: Where prompt_field holds a list: how many of its texts make the prompt; the rest are answers
            where references_fields names the same field.
        id_field: Field with the row's id; None = file name and line number.
        split_field: Field with the split (train, val or validation or dev, test) where one file has all of them.
        held_out: Share of the rows of `train` that become val, and as large a one test, where neither has a file of
            its own and split_field is None. Where val and test name the same file, each has half of it.
    """

    def __init__(
        self,
        train: str,
        val: str | None = None,
        test: str | None = None,
        prompt_field: str = "prompt",
        references_fields: list[str] | None = None,
        prompt_texts: int = 1,
        id_field: str | None = None,
        split_field: str | None = None,
        held_out: float = 0.1,
    ) -> None:
        references = ["references"] if references_fields is None else references_fields
        self.fields = Fields("JsonLines", prompt_field, references, id_field, prompt_texts)
        self.split_field, self.held_out = split_field, held_out
        self.files = {"train": train, "val": val or train, "test": test or (None if val else train)}
        if split_field is not None and (val or test):
            raise ValueError(
                f"JsonLines: got split_field {split_field!r} beside files for val or test, expected one of the two. "
                "Leave split_field out, or name one file, in train."
            )
        if not 0 < held_out < 0.5:
            raise ValueError(f"JsonLines: got held_out {held_out}, expected a share between 0 and 0.5. Correct it.")

    def splits(self) -> dict[str, list[Example]]:
        found: dict[str, list[Example]] = {split: [] for split, file in self.files.items() if file is not None}
        for file in dict.fromkeys(file for file in self.files.values() if file is not None):
            sharing = [split for split, path in self.files.items() if path == file]
            for number, example in self._examples(file):
                split = self._split(example, sharing, f"line {number} of {file}")
                found.setdefault(split, []).append(example)
        return found

    def _examples(self, file: str) -> Iterator[tuple[int, Example]]:
        stem = Path(file).name.partition(".")[0]
        for number, row in json_lines(file, "JsonLines"):
            yield number, self.fields.example(row, f"{stem}-{number}", f"line {number} of {file}")

    def _split(self, example: Example, sharing: list[str], where: str) -> str:
        if self.split_field is None:
            return shared_out(example.id, sharing, self.held_out)
        split = example.columns.get(self.split_field)
        if split not in SPLITS:
            raise ValueError(
                f"JsonLines: got split {split!r} in {where}, expected one of {', '.join(SPLITS)}. "
                "Correct the line, or set split_field to another field or to null."
            )
        return SPLITS[split]


def shared_out(name: str, sharing: list[str], held_out: float) -> str:
    """Which of the splits that share a file a row belongs to: by the hash of its id.

    Args:
        name: The row's id.
        sharing: The splits.
        held_out: Share of each split beside train; without train among them all get the same.
    """
    others = [split for split in sharing if split != "train"]
    share = held_out if "train" in sharing else 1 / len(others)
    which = int(place(name) / share) if others else 0
    return others[which] if which < len(others) else "train"


class Parallel(TextSource):
    """Prompts in one text file and answers in another, line by line (plain or .gz).

    A line that is empty on either side is passed over.

    Args:
        train_prompts: Training prompts, one per line.
        train_answers: Their answers, line by line.
        val_prompts: Validation prompts.
        val_answers: Their answers.
        test_prompts: Test prompts; None where there are none.
        test_answers: Their answers.
    """

    def __init__(
        self,
        train_prompts: str,
        train_answers: str,
        val_prompts: str,
        val_answers: str,
        test_prompts: str | None = None,
        test_answers: str | None = None,
    ) -> None:
        self.files = {"train": (train_prompts, train_answers), "val": (val_prompts, val_answers)}
        if (test_prompts is None) != (test_answers is None):
            raise ValueError("Parallel: got one of test_prompts and test_answers, expected both or neither. Add it.")
        if test_prompts is not None and test_answers is not None:
            self.files["test"] = (test_prompts, test_answers)

    def splits(self) -> dict[str, list[Example]]:
        return {split: self._pairs(split, *files) for split, files in self.files.items()}

    def _pairs(self, split: str, prompts: str, answers: str) -> list[Example]:
        left, right = lines_of(prompts, "Parallel"), lines_of(answers, "Parallel")
        if len(left) != len(right):
            raise ValueError(
                f"Parallel: got {len(left)} lines in {prompts} and {len(right)} in {answers}, expected as many. "
                "Correct the files."
            )
        pairs = enumerate(zip(left, right, strict=True), start=1)
        return [Example(f"{split}-{i}", asked, (said,)) for i, (asked, said) in pairs if asked and said]


def lines_of(path: str, who: str) -> list[str]:
    """The lines of a text file without white space around them; an empty last one is none."""
    lines = read_text(path, who, "a text file").split("\n")
    return [line.strip() for line in (lines[:-1] if lines[-1] == "" else lines)]
