"""JSON Lines that commands read and write, plain or gzipped."""

import gzip
import json
from pathlib import Path
from typing import Any, Literal, TextIO, cast

from lrl_core.commands import CommandError


def open_text(path: Path, mode: Literal["rt", "wt"] = "rt") -> TextIO:
    """A text file in UTF-8; gzipped where its name ends in .gz."""
    if path.suffix == ".gz":
        return cast(TextIO, gzip.open(path, mode, encoding="utf-8"))
    return cast(TextIO, path.open(mode, encoding="utf-8"))


def json_object(line: str, where: str, expected: str, todo: str) -> dict[str, Any]:
    """The object on a line; CommandError where there is none.

    Args:
        line: The line.
        where: Command, file and number of the line, for the error.
        expected: What the line should be, for the error.
        todo: What to do otherwise, for the error.
    """
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise CommandError(f"{where}: got no JSON ({error}); expected {expected}. {todo}") from error
    if not isinstance(row, dict):
        raise CommandError(f"{where}: got a {type(row).__name__}; expected {expected}. {todo}")
    return row
