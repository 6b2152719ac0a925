"""`lrl transcripts`: read the conversations (or monologues) of a run in the terminal."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from lrl_core.commands import CommandError, layout
from lrl_core.commands.lines import json_object, open_text
from lrl_core.errors import suggest

if TYPE_CHECKING:
    import argparse

    from rich.console import Console

_EXPECTED = 'a JSON object with "turns": [{"who": "policy" or "world", "text": "..."}] or with "text"'
_POLICY, _WORLD, _QUIET, _SUCCESS, _FAILURE = "cyan", "yellow", "dim", "bold green", "bold red"
_INDENT = 6
"""How far the world's words stand to the right of the policy's."""


class Transcript(NamedTuple):
    """One episode, as it was written down."""

    id: str
    """Which prompt."""
    step: int | None
    """Which training step; None in answers to held-out prompts."""
    turns: tuple[tuple[str, str], ...]
    """Who spoke ("policy" or "world") and what; a monologue is one turn."""
    paid: float | None
    """What the environment paid in all; None in a monologue."""
    references: tuple[str, ...]
    """What people said."""


def main(arguments: list[str]) -> int:
    """Print the episodes that are asked for, and how many they are."""
    options = _parser().parse_args(arguments)
    path = Path(options.file)
    if options.first is not None and options.first < 1:
        raise CommandError(f"lrl transcripts: --first is {options.first}; expected at least 1.")
    every = list(read(path))
    shown = choose(every, path, options.id, options.only)[: options.first]
    console = _console(options.plain)
    for transcript in shown:
        _show(transcript, console)
    console.print(summary(shown, every), style="bold")
    return 0


def _parser() -> "argparse.ArgumentParser":
    import argparse

    parser = argparse.ArgumentParser(
        prog="lrl transcripts",
        description="Read conversations in the terminal: the policy's words on the left, the world's to the right.",
    )
    parser.add_argument(
        "file", metavar="FILE", help="predictions.jsonl or rollouts.jsonl of the callback RolloutLog (.gz too)."
    )
    parser.add_argument("--first", type=int, metavar="N", help="Show no more than N.")
    parser.add_argument("--only", choices=("failed", "paid"), help="Those that were paid nothing, or something.")
    parser.add_argument("--id", help="Those of the prompt with this id.")
    parser.add_argument("--plain", action="store_true", help="Without colours.")
    return parser


def read(path: Path) -> Iterator[Transcript]:
    """The episodes of a JSON-lines file, checked; .gz files are unpacked."""
    if path.is_dir():
        there = ", ".join(sorted(file.name for file in path.glob("*.jsonl*"))) or "no such file"
        raise CommandError(f"lrl transcripts: {path} is a folder; expected a file of JSON lines. It holds {there}.")
    try:
        with open_text(path) as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _transcript(line, f"{path}, line {number}", number)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise CommandError(f"lrl transcripts: {path} is not readable: {error}") from error


def _transcript(line: str, where: str, number: int) -> Transcript:
    todo = "Name a file that the callback RolloutLog has written."
    row = json_object(line, where, _EXPECTED, todo)
    paid, turns = row.get("paid"), _turns(row)
    if turns is None or not isinstance(paid, int | float | None):
        named = {column: row[column] for column in ("turns", "text", "paid") if column in row}
        got = ", ".join(f"{column} {value!r}" for column, value in named.items()) or f"the columns {sorted(row)}"
        raise CommandError(f"{where}: got {got}; expected {_EXPECTED}. {todo}")
    name = str(row.get("id", row.get("prompt", number)))
    return Transcript(name, row.get("step"), turns, paid, tuple(map(str, row.get("references") or ())))


def _turns(row: dict[str, Any]) -> tuple[tuple[str, str], ...] | None:
    """Who said what; None where the row does not say."""
    listed = row.get("turns", [{"who": "policy", "text": row.get("text")}])
    if not isinstance(listed, list) or not all(isinstance(turn, dict) for turn in listed):
        return None
    turns = tuple((turn.get("who"), turn.get("text")) for turn in listed)
    good = all(who in ("policy", "world") and isinstance(text, str) for who, text in turns)
    return cast(tuple[tuple[str, str], ...], turns) if good else None


def choose(transcripts: Sequence[Transcript], path: Path, name: str | None, only: str | None) -> list[Transcript]:
    """Those that are asked for; raises CommandError where there are none.

    Args:
        transcripts: All of the file.
        path: The file, for the error.
        name: Id of the prompt; None for all.
        only: "failed" (paid nothing, or less), "paid" (more than nothing); None for all.
    """
    who = f"lrl transcripts: {path}"
    if not transcripts:
        raise CommandError(f"{who} has no rows; expected at least one. Did the run draw or predict any?")
    chosen = [one for one in transcripts if name is None or one.id == name]
    if not chosen:
        known = list(dict.fromkeys(one.id for one in transcripts))
        some = ", ".join(known[:3])
        raise CommandError(
            f"{who} has no id {name!r}; expected one of its {len(known)}, such as {some}. {suggest(name or '', known)}"
            "Leave --id out to see them all."
        )
    if only is None:
        return chosen
    if all(one.paid is None for one in chosen):
        raise CommandError(
            f"{who} has no row with a number in `paid`; --only expects conversations, of which an environment paid "
            "some. Leave --only out."
        )
    found = [one for one in chosen if one.paid is not None and (one.paid > 0) == (only == "paid")]
    if not found:
        paid = "none" if only == "paid" else "every one"
        raise CommandError(
            f"{who}: of {len(chosen)} rows {paid} was paid something, so that --only {only} has nothing to show. Leave "
            "--only out."
        )
    return found


def summary(shown: Sequence[Transcript], every: Sequence[Transcript]) -> str:
    """How many are shown of how many, and what was paid on average."""
    text = f"{len(shown)} of {len(every)} shown"
    mean, overall = _mean(shown), _mean(every)
    if mean is not None:
        text += f", mean paid {mean:.3f}"
        if len(shown) < len(every):
            text += f" (all: {overall:.3f})"
    return text


def _mean(transcripts: Sequence[Transcript]) -> float | None:
    paid = [one.paid for one in transcripts if one.paid is not None]
    return sum(paid) / len(paid) if paid else None


def _console(plain: bool) -> "Console":
    from rich.console import Console  # takes longer to import than other commands take

    return Console(no_color=plain or None, color_system=None if plain else "auto", highlight=False, soft_wrap=True)


def _show(transcript: Transcript, console: "Console") -> None:
    from rich.text import Text

    header = Text(_printable(transcript.id), style="bold")
    if transcript.step is not None:
        header.append(f"  step {transcript.step}", style=_QUIET)
    if transcript.paid is not None:
        header.append(f"  paid {transcript.paid:g}", style=_SUCCESS if transcript.paid > 0 else _FAILURE)
    console.print(header)
    for who, text in transcript.turns:
        console.print(_paragraph(text, 2 if who == "policy" else 2 + _INDENT, _POLICY if who == "policy" else _WORLD))
    for reference in transcript.references:
        console.print(_paragraph(f"reference: {reference}", 2, _QUIET))
    console.print()


def _paragraph(text: str, indent: int, style: str) -> Any:
    from rich.text import Text

    lines = [line for part in _printable(text).splitlines() or [""] for line in layout.wrapped(part, indent)]
    return Text("\n".join(lines), style=style)


def _printable(text: str) -> str:
    """A policy may say anything, also what would move the cursor."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}" for letter in text)
