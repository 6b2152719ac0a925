"""Stories as lists of sentences: which one is wanted, what stands before it, and how the story goes on after it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lrl_plugins.tasks.files import json_lines
from lrl_plugins.tasks.text.sources import Example, TextSource, shared_out


class Stories(TextSource):
    """Stories in JSON Lines (.jsonl or .jsonl.gz), a list of sentences per line: every sentence is wanted once.

    The prompt is the `context` sentences before the wanted one, the human answer is the sentence itself, and the
    sentences after it are the column `after`, which story infilling reads; the column `before` repeats the prompt.
    Other columns of the row are kept. All sentences of a story are in one split.

    Args:
        train: File to train on.
        val: File to validate on; None = stories of `train`, held out by the hash of their line number.
        test: File to test on; None = no test, or as val where val is None too.
        context: Sentences before the wanted one, >= 1.
        after: Sentences after the wanted one, >= 0; with 0 the last sentence of a story is wanted too.
        most_words: The wanted sentence and those after it have at most this many words each; others are passed over.
        field: Column with the list of sentences.
        held_out: Share of the stories that become val, and as large a one test, where val is None.
    """

    def __init__(
        self,
        train: str,
        val: str | None = None,
        test: str | None = None,
        context: int = 2,
        after: int = 1,
        most_words: int = 30,
        field: str = "sentences",
        held_out: float = 0.1,
    ) -> None:
        self.files = {"train": train, "val": val or train, "test": test or (None if val else train)}
        self.context, self.after, self.most_words = context, after, most_words
        self.field, self.held_out = field, held_out
        if context < 1 or after < 0 or most_words < 1:
            raise ValueError(
                f"Stories: got context {context}, after {after} and most_words {most_words}, expected at least 1, 0 "
                "and 1. Correct them in the recipe."
            )
        if not 0 < held_out < 0.5:
            raise ValueError(f"Stories: got held_out {held_out}, expected a share between 0 and 0.5. Correct it.")

    def splits(self) -> dict[str, list[Example]]:
        found: dict[str, list[Example]] = {split: [] for split, file in self.files.items() if file is not None}
        for file in dict.fromkeys(file for file in self.files.values() if file is not None):
            sharing = [split for split, path in self.files.items() if path == file]
            stem = Path(file).name.partition(".")[0]
            for number, row in json_lines(file, "Stories"):
                story = f"{stem}-{number}"
                split = shared_out(story, sharing, self.held_out) if len(sharing) > 1 else sharing[0]
                found[split] += self._windows(story, row, f"line {number} of {file}")
        return found

    def _windows(self, story: str, row: dict[str, Any], where: str) -> Iterator[Example]:
        """The examples of one story."""
        sentences = self._sentences(row, where)
        short = [len(sentence.split()) <= self.most_words for sentence in sentences]
        others = {name: value for name, value in row.items() if name != self.field}
        for i in range(self.context, len(sentences) - self.after):
            end = i + 1 + self.after
            if all(short[i:end]):
                before, after = " ".join(sentences[i - self.context : i]), " ".join(sentences[i + 1 : end])
                columns = {**others, "before": before, "after": after}
                yield Example(f"{story}-{i}", before, (sentences[i],), columns)

    def _sentences(self, row: dict[str, Any], where: str) -> list[str]:
        given = row.get(self.field)
        if not isinstance(given, list) or not all(isinstance(sentence, str) for sentence in given):
            raise ValueError(
                f"Stories: got {type(given).__name__} as {self.field!r} in {where}, expected a list of sentences. "
                f"Set `field` to the column that has them, among {', '.join(row)}, or correct the line."
            )
        return [sentence.strip() for sentence in given if sentence.strip()]
