"""Sources that read published data: dialogues with two replies, rated translations, plain sentences."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lrl_plugins.tasks.files import json_lines
from lrl_plugins.tasks.preferences.sources import PreferenceSource, Ranked, from_files
from lrl_plugins.tasks.text.sources import lines_of

TURN = "\n\nAssistant:"
"""What stands before every reply of a dialogue of the HH-RLHF data."""


class Dialogues(PreferenceSource):
    """Two replies that end the same dialogue, in the format of HH-RLHF (Bai et al. 2022, arXiv 2204.05862).

    A line is `{"chosen": ..., "rejected": ...}`; both texts begin with the same turns, `\\n\\nHuman: ...` and
    `\\n\\nAssistant: ...`. The prompt is what they share up to the last `\\n\\nAssistant:` in it, the candidates what
    follows. In a few rows of the published files the dialogues part before their last turn: then the candidates hold
    the turns that follow. An empty reply is an answer like any other. Rows that share no turn are refused.

    The file `test` of the published data may be split again: rows up to `train_rows` to learn from, the rest to test.

    Args:
        train: File of the training rows (.jsonl or .jsonl.gz), or of all rows.
        val: File of the validation rows; None = rows of `train`, held out by the hash of their prompt.
        test: File of the test rows; None = the rows of `train` after `train_rows`, where that is given.
        train_rows: How many rows of `train`, from the first, are learnt from and validated on; the rest is the test.
            None = all.
        held_out: Share of the training rows that become val where val has no file (and, without test and train_rows,
            as large a one test).
    """

    def __init__(
        self,
        train: str,
        val: str | None = None,
        test: str | None = None,
        train_rows: int | None = None,
        held_out: float = 0.1,
    ) -> None:
        if train_rows is not None and (test is not None or train_rows < 1):
            raise ValueError(
                f"Dialogues: got train_rows {train_rows} and test {test!r}; expected at least 1 row, and no file for "
                "the test beside it, which is the rest of `train`. Leave one of them out."
            )
        self.files = {"train": train, "val": val, "test": test}
        self.train_rows, self.held_out = train_rows, held_out

    def splits(self) -> dict[str, list[Ranked]]:
        cut, train = self.train_rows, str(self.files["train"])
        # naming a test file keeps held-out rows for val alone; the rest of `train` takes its place
        files = self.files if cut is None else self.files | {"test": train}

        def read(path: str) -> Iterator[Ranked]:
            return (row for number, row in self._rows(path) if cut is None or path != train or number <= cut)

        found = from_files("Dialogues", files, self.held_out, read, lambda row: row.prompt)
        if cut is not None:
            found["test"] = [row for number, row in self._rows(train) if number > cut]
        return found

    def _rows(self, file: str) -> Iterator[tuple[int, Ranked]]:
        stem = Path(file).name.partition(".")[0]
        for number, row in json_lines(file, "Dialogues"):
            prompt, candidates = split_dialogues(row, f"line {number} of {file}")
            yield number, Ranked(f"{stem}-{number}", prompt, candidates, (0, 1), row)


def split_dialogues(row: dict[str, Any], where: str) -> tuple[str, tuple[str, str]]:
    """What two dialogues share up to the last reply that begins in both, and how each goes on.

    Args:
        row: With the texts chosen and rejected.
        where: Where it stands, for messages.
    """
    chosen, rejected = row.get("chosen"), row.get("rejected")
    if not isinstance(chosen, str) or not isinstance(rejected, str):
        raise ValueError(
            f"Dialogues: got the fields {', '.join(row)} in {where}, expected the texts `chosen` and `rejected`. "
            "Correct the line, or read the file with RankedJsonLines."
        )
    end = chosen.rfind(TURN)
    while end >= 0 and not rejected.startswith(chosen[: end + len(TURN)]):
        end = chosen.rfind(TURN, 0, end)
    if end < 0:
        raise ValueError(
            f"Dialogues: got two texts in {where} that share no turn up to {TURN!r}, expected dialogues that begin "
            "alike. Correct the line, or read the file with RankedJsonLines."
        )
    end += len(TURN)
    return chosen[:end].strip(), (chosen[end:].strip(), rejected[end:].strip())


class RatedTranslations(PreferenceSource):
    """Translations of the same segment by several systems and people, ranked by what errors cost (MQM, WMT 2023).

    A line is `{"doc", "seg", "source", "candidates": [{"system", "text", "mean"}]}`, where `mean` is the mean penalty
    over raters, less is better (Freitag et al. 2021, arXiv 2104.14478). Reference translations, such as refA, are
    candidates like any other. Equal texts of one segment are one candidate with the mean of their penalties. Segments
    of one document are never in two splits.

    Args:
        train: File of the training rows (.jsonl or .jsonl.gz), or of all rows.
        val: File of the validation rows; None = documents of `train`, held out by the hash of their name.
        test: File of the test rows; None = as val where val is None too, else no test rows.
        tolerance: A candidate ties with the best one of a rank whose penalty is at most this much smaller; >= 0.
        held_out: Share of the documents of `train` that become val, and as large a one test, where they have no file.
    """

    def __init__(
        self,
        train: str,
        val: str | None = None,
        test: str | None = None,
        tolerance: float = 0.0,
        held_out: float = 0.15,
    ) -> None:
        if tolerance < 0:
            raise ValueError(f"RatedTranslations: got tolerance {tolerance}, expected a penalty >= 0. Correct it.")
        self.files = {"train": train, "val": val, "test": test}
        self.tolerance, self.held_out = tolerance, held_out

    def splits(self) -> dict[str, list[Ranked]]:
        same = "RatedTranslations", self.files, self.held_out
        return from_files(*same, self._rows, lambda row: str(row.columns["doc"]))

    def _rows(self, file: str) -> Iterator[Ranked]:
        for number, row in json_lines(file, "RatedTranslations"):
            try:
                penalties: dict[str, list[float]] = {}
                for candidate in row["candidates"]:
                    penalties.setdefault(str(candidate["text"]), []).append(float(candidate["mean"]))
                name, prompt = f"{row['doc']}-{row['seg']}", str(row["source"])
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(
                    f"RatedTranslations: got line {number} of {file}, which does not fit ({type(error).__name__}: "
                    f"{error}), expected doc, seg, source and candidates with text and mean. Correct the line."
                ) from error
            means = [sum(own) / len(own) for own in penalties.values()]
            yield Ranked(name, prompt, tuple(penalties), tolerant_ranks(means, self.tolerance), row)


def tolerant_ranks(penalties: list[float], tolerance: float) -> tuple[int, ...]:
    """Ranks from 0, the smallest penalty first; a rank holds what is at most `tolerance` above its best member.

    Args:
        penalties: What each candidate costs.
        tolerance: >= 0.
    """
    ranks, rank, best = [0] * len(penalties), -1, float("-inf")
    for i in sorted(range(len(penalties)), key=penalties.__getitem__):
        if penalties[i] - best > tolerance:
            rank, best = rank + 1, penalties[i]
        ranks[i] = rank
    return tuple(ranks)


class Continuations(PreferenceSource):
    """Plain sentences: the first words are the prompt, the rest is the one answer; nobody compared any.

    For maximum likelihood and as prompts of reinforcement learning; the task is told `answers: best`. A file is JSON
    Lines where its name ends in .jsonl or .jsonl.gz, else one sentence per line (.gz too). Sentences without a word
    after the prompt are left out.

    Args:
        train: File of the training sentences, or of all.
        val: File of the validation sentences; None = sentences of `train`, held out by their hash.
        test: File of the test sentences; None = as val where val is None too, else no test.
        prompt_words: Words of the prompt.
        text_field: In JSON Lines: field with the sentence.
        only: In JSON Lines: rows whose fields have these values, such as `{label: 1}`; None = all.
        held_out: Share of the sentences of `train` that become val, and as large a one test, where they have no file.
    """

    def __init__(
        self,
        train: str,
        val: str | None = None,
        test: str | None = None,
        prompt_words: int = 4,
        text_field: str = "text",
        only: dict[str, Any] | None = None,
        held_out: float = 0.1,
    ) -> None:
        if prompt_words < 1:
            raise ValueError(f"Continuations: got prompt_words {prompt_words}, expected at least 1. Correct it.")
        self.files = {"train": train, "val": val, "test": test}
        self.prompt_words, self.text_field, self.only, self.held_out = prompt_words, text_field, only or {}, held_out

    def splits(self) -> dict[str, list[Ranked]]:
        def sentence(row: Ranked) -> str:
            return f"{row.prompt} {row.candidates[0]}"

        return from_files("Continuations", self.files, self.held_out, self._rows, sentence)

    def _rows(self, file: str) -> Iterator[Ranked]:
        stem = Path(file).name.partition(".")[0]
        for number, columns, text in self._sentences(file):
            pieces = text.split()
            prompt, answer = pieces[: self.prompt_words], pieces[self.prompt_words :]
            if answer:
                yield Ranked(f"{stem}-{number}", " ".join(prompt), (" ".join(answer),), (0,), columns)

    def _sentences(self, file: str) -> Iterator[tuple[int, dict[str, Any], str]]:
        if not file.endswith((".jsonl", ".jsonl.gz")):
            for number, line in enumerate(lines_of(file, "Continuations"), start=1):
                yield number, {}, line
            return
        for number, row in json_lines(file, "Continuations"):
            missing = {self.text_field, *self.only} - row.keys()
            if missing:
                raise ValueError(
                    f"Continuations: got no field {min(missing)!r} in line {number} of {file}, expected one among its "
                    f"fields {', '.join(row)}. Set text_field and only to what the data have."
                )
            if all(row[name] == value for name, value in self.only.items()):
                yield number, row, str(row[self.text_field])
