"""Running text, cut into a beginning to read and a continuation to write."""

import re
from pathlib import Path

from lrl_plugins.tasks.text.sources import Example, TextSource, lines_of, shared_out

_HEADING = re.compile(r"=( =)* .* =( =)*")
_JOINED = re.compile(r" @(\W)@ ")


class PlainText(TextSource):
    """Text files (plain or .gz), cut into pieces: the first words are the prompt, the next ones the human answer.

    Headings as in WikiText (` = Title = `) and empty lines are left out, a heading begins a new text, and its
    ` @-@ ` becomes a hyphen. No piece reaches from one text into the next; what is too short for a prompt and one
    more word is left out.

    Args:
        train: File to train on.
        val: File to validate on; None = pieces of `train`, held out by the hash of their number.
        test: File to test on; None = no test, or as val where val is None too.
        prompt_words: Words of the prompt.
        continuation_words: Words of the continuation, at most.
        by_line: Whether every line is a text of its own (a sentence, say); False joins lines up to the next heading.
        held_out: Share of the pieces that become val, and as large a one test, where val is None.
    """

    def __init__(
        self,
        train: str,
        val: str | None = None,
        test: str | None = None,
        prompt_words: int = 16,
        continuation_words: int = 16,
        by_line: bool = False,
        held_out: float = 0.1,
    ) -> None:
        self.train, self.files = train, {"val": val, "test": test}
        self.prompt_words, self.continuation_words = prompt_words, continuation_words
        self.by_line, self.held_out = by_line, held_out
        if prompt_words < 1 or continuation_words < 1:
            raise ValueError(
                f"PlainText: got prompt_words {prompt_words} and continuation_words {continuation_words}, expected at "
                "least 1 each. Correct them in the recipe."
            )

    def splits(self) -> dict[str, list[Example]]:
        files, train = self.files, self.train
        if files["val"] is not None:
            return {"train": self._pieces(train)} | {split: self._pieces(file) for split, file in files.items() if file}
        sharing = ["train", "val", *(["test"] if files["test"] is None else [])]
        found: dict[str, list[Example]] = {split: [] for split in sharing}
        for example in self._pieces(train):
            found[shared_out(example.id, sharing, self.held_out)].append(example)
        return found if files["test"] is None else found | {"test": self._pieces(files["test"])}

    def _pieces(self, file: str) -> list[Example]:
        stem = Path(file).name.partition(".")[0]
        size = self.prompt_words + self.continuation_words
        pieces = [text[i : i + size] for text in self._texts(file) for i in range(0, len(text), size)]
        long_enough = [piece for piece in pieces if len(piece) > self.prompt_words]
        return [self._example(f"{stem}-{i}", piece) for i, piece in enumerate(long_enough)]

    def _example(self, name: str, piece: list[str]) -> Example:
        asked, said = piece[: self.prompt_words], piece[self.prompt_words :]
        return Example(name, " ".join(asked), (" ".join(said),))

    def _texts(self, file: str) -> list[list[str]]:
        texts: list[list[str]] = [[]]
        for line in lines_of(file, "PlainText"):
            if self.by_line or _HEADING.fullmatch(line):
                texts.append([])
            if not _HEADING.fullmatch(line):
                texts[-1] += _JOINED.sub(r"\1", line).split()
        return texts
