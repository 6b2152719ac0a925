"""`lrl score`: apply a reward to texts in a file, without any training."""

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from lrl_core.commands import CommandError, errors, mentions, naming
from lrl_core.commands.lines import json_object, open_text
from lrl_core.interfaces import Reward, TaskFacts, bind_all
from lrl_core.masks import length_mask
from lrl_core.scoring import count_unjudged, judge
from lrl_core.tokenizer import WordTokenizer
from lrl_core.types import Prompts, RewardSignal, Rollout

Row = dict[str, Any]

_EXPECTED = 'a JSON object {"candidate": "...", "references": ["...", ...]} and any further columns'


def main(arguments: list[str]) -> int:
    """Score a file; one JSON object on stdout, everything else on stderr."""
    naming.import_named(mentions.in_arguments(arguments))
    parser = _parser()
    try:
        options = parser.parse_args(arguments)
    except ArgumentError as error:
        raise CommandError(errors.parsing(error, "lrl score")) from error
    rows = list(read_rows(Path(options.input)))
    if options.output and Path(options.output).resolve() == Path(options.input).resolve():
        raise CommandError(f"lrl score: --output and --input are the same file {options.input}; name another output.")
    reward = _build(parser, options)
    with _stdout_to_stderr():
        signals = list(score(reward, rows, options.batch_size))
    if options.output:
        _write(Path(options.output), rows, signals)
    print(json.dumps(summary(signals)))
    return 0


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="lrl score",
        exit_on_error=False,
        description="Score the texts of a file with a reward (`lrl plugins` lists them).",
    )
    parser.add_subclass_arguments(Reward, "reward", fail_untyped=False, required=True)
    parser.add_argument("--input", type=str, required=True, help=f"JSON lines (.gz too): each {_EXPECTED}.")
    parser.add_argument(
        "--output",
        type=str | None,
        default=None,
        help="Where the rows go with `reward` (null: cannot judge) and `parts`.",
    )
    parser.add_argument("--batch_size", type=int, default=256, help="Rows that are scored at once.")
    return parser


def _build(parser: ArgumentParser, options: Namespace) -> Reward:
    if options.batch_size < 1:
        raise CommandError(f"lrl score: --batch_size is {options.batch_size}; expected at least 1.")
    try:
        return parser.instantiate_classes(options).reward
    except (ValueError, ImportError, OSError) as error:
        raise CommandError(f"--reward: {errors.building(error)}") from error


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a JSON-lines file, checked; .gz files are unpacked."""
    try:
        with open_text(path, "rt") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _checked(line, f"{path}, line {number}")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise CommandError(f"lrl score: {path} is not readable: {error}") from error


def _checked(line: str, where: str) -> Row:
    todo = "Correct the line or leave it out."
    row = json_object(line, where, _EXPECTED, todo)
    if not isinstance(row.get("candidate"), str):
        got = f"candidate {row['candidate']!r}" if "candidate" in row else f"the columns {sorted(row)}"
        raise CommandError(f"{where}: got {got}; expected {_EXPECTED}. {todo}")
    references = row.get("references", [])
    if not isinstance(references, list) or not all(isinstance(text, str) for text in references):
        raise CommandError(f"{where}: got references {references!r}; expected a list of texts. {todo}")
    return row


def score(reward: Reward, rows: list[Row], batch_size: int) -> Iterator[RewardSignal]:
    """Bind the reward to the rows' own references and score them, batch by batch."""
    if not rows:
        return
    references = tuple(tuple(row.get("references", ())) for row in rows)
    texts = [text for row in rows for text in (row["candidate"], *row.get("references", ()), _prompt(row))]
    tokenizer = WordTokenizer.from_texts(texts)
    example = as_rollout(rows[:1], tokenizer, 0).prompts
    try:
        bind_all(reward, TaskFacts(tokenizer, references if any(references) else (), example))
    except (ValueError, OSError, ImportError) as error:
        raise CommandError(str(error)) from error
    reward.eval()
    for start in range(0, len(rows), batch_size):
        with torch.no_grad():
            yield judge(reward, as_rollout(rows[start : start + batch_size], tokenizer, start))


def as_rollout(rows: list[Row], tokenizer: WordTokenizer, first: int) -> Rollout:
    """Texts from a file as if a policy had said them; every row is a prompt of its own.

    Args:
        rows: Rows of the file.
        tokenizer: Knows every word.
        first: Number of the first row in the file.
    """
    lines = [[*tokenizer.encode(row["candidate"]), tokenizer.eos] for row in rows]
    tokens, lengths = _padded(lines, tokenizer.pad)
    prompt_tokens, prompt_lengths = _padded([tokenizer.encode(_prompt(row)) for row in rows], tokenizer.pad)
    references = tuple(tuple(row.get("references", ())) for row in rows)
    prompts = Prompts(
        tokens=prompt_tokens,
        lengths=prompt_lengths,
        group=torch.arange(first, first + len(rows)),
        references=references if any(references) else None,
        examples=tuple({"id": str(first + i), **row} for i, row in enumerate(rows)),
    )
    return Rollout(
        prompts=prompts,
        tokens=tokens,
        lengths=lengths,
        action_mask=length_mask(lengths, tokens.shape[1]),
        logprobs=torch.zeros(tokens.shape),
        terminated=torch.ones(len(rows), dtype=torch.bool),
        texts=tuple(row["candidate"] for row in rows),
    )


def _prompt(row: Row) -> str:
    """The optional column `prompt`."""
    return row["prompt"] if isinstance(row.get("prompt"), str) else ""


def _padded(lines: list[list[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(len, lines))
    filled = [line + [pad] * (longest - len(line)) for line in lines]
    return torch.tensor(filled, dtype=torch.long).view(len(lines), longest), torch.tensor([len(line) for line in lines])


def summary(signals: list[RewardSignal]) -> dict[str, float | int | None]:
    """Mean over the rows that could be judged (None: no row), number of rows, number that could not be judged."""
    totals = [value for signal in signals for value in signal.total.tolist()]
    judged = [value for value in totals if not math.isnan(value)]
    mean = math.fsum(judged) / len(judged) if judged else None
    return {"mean": mean, "n": len(totals), "failed": sum(map(count_unjudged, signals))}


def _write(path: Path, rows: list[Row], signals: list[RewardSignal]) -> None:
    scored = [(signal, i) for signal in signals for i in range(len(signal.total))]
    with open_text(path, "wt") as file:
        for row, (signal, i) in zip(rows, scored, strict=True):
            parts = {name: _number(part[i].item()) for name, part in signal.parts.items()}
            written = {**row, "reward": _number(signal.total[i].item())} | ({"parts": parts} if parts else {})
            file.write(json.dumps(written, ensure_ascii=False) + "\n")


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Keep stdout for the result: what a reward prints goes to stderr."""
    stdout, sys.stdout = sys.stdout, sys.stderr
    try:
        yield
    finally:
        sys.stdout = stdout
