"""Lists and tables for the terminal, without a library: those take longer to import than a list may take to print."""

import os
import sys
from collections.abc import Collection, Sequence

_BOLD, _RED, _PLAIN = "\033[1m", "\033[31m", "\033[0m"
_NARROW = 24
"""Columns below which a text is not wrapped: it would be a tower of single words."""


def table(rows: Sequence[Sequence[str]], marked: Collection[int] = ()) -> str:
    """Aligned columns under a bold heading; the last one is wrapped to the terminal.

    Args:
        rows: The heading, then the lines of the table.
        marked: Indices of the rows that are shown in red.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    indent = sum(widths) + 2 * len(widths)
    lines = []
    for number, (*cells, text) in enumerate(rows):
        first, *more = wrapped(text, indent)
        start = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        line = "\n".join([f"{start}  {first[indent:]}".rstrip(), *more])
        lines.append(_styled(line, _RED) if number in marked else bold(line) if number == 0 else line)
    return "\n".join(lines)


def wrapped(text: str, indent: int) -> list[str]:
    """The text in indented lines as wide as the terminal; in one line where that is too narrow or there is none."""
    width = _terminal_width() - indent
    if width < _NARROW:
        return [" " * indent + text]
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return [" " * indent + line for line in lines]


def bold(text: str) -> str:
    """The text in bold type where that can be shown."""
    return _styled(text, _BOLD)


def _styled(text: str, style: str) -> str:
    return f"{style}{text}{_PLAIN}" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else text


def _terminal_width() -> int:
    """What COLUMNS says, else the terminal; 0 where nobody looks."""
    asked = os.environ.get("COLUMNS", "")
    if asked.isdecimal():
        return int(asked)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError, AttributeError):
        return 0
