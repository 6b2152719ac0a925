"""Text files and JSON Lines, plain or gzipped, read whole, with errors that say which line is wrong; splits of rows."""

import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"}
"""What splits are called, and what they are called here."""


def read_text(path: str, who: str, expected: str) -> str:
    """The text of a file in UTF-8; gzipped where its name ends in .gz.

    Args:
        path: The file.
        who: Who reads, for the error message.
        expected: What the file should be, for the error message.
    """
    try:
        data = Path(path).read_bytes()
        return (gzip.decompress(data) if path.endswith(".gz") else data).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{who}: got {path}, which cannot be read ({error}), expected {expected}. Correct the path; relative "
            f"ones start at {Path.cwd()}."
        ) from error


def json_lines(path: str, who: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers, from 1, and the objects on them; empty lines are passed over.

    Args:
        path: The file.
        who: Who reads, for the error message.
    """
    for number, line in enumerate(read_text(path, who, "a JSON file").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{who}: got line {number} of {path}, which is no JSON ({error}), expected one object per line. "
                "Correct the line."
            ) from error
        if not isinstance(row, dict):
            raise ValueError(
                f"{who}: got a {type(row).__name__} in line {number} of {path}, expected an object. Correct the line."
            )
        yield number, row


def place(name: str) -> float:
    """A number in [0, 1) that depends on a row's name alone: what holds rows out the same way in every run."""
    return int.from_bytes(hashlib.sha1(name.encode()).digest()[:6], "big") / 2**48
