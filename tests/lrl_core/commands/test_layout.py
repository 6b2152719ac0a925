import sys

import pytest

from lrl_core.commands import layout

ROWS = [("kind", "name", "what it is"), ("reward", "X", "one two three four five six seven"), ("a", "Longer", "short")]


def test_the_last_column_is_wrapped_under_itself(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert layout.table(ROWS).splitlines() == [
        "kind    name    what it is",
        "reward  X       one two three four five",
        "                six seven",
        "a       Longer  short",
    ]


@pytest.mark.parametrize("columns", [None, "20"])
def test_nothing_is_wrapped_in_a_pipe_or_where_there_is_no_room(monkeypatch, columns):
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    assert layout.table(ROWS).splitlines()[1] == "reward  X       one two three four five six seven"


def test_a_word_longer_than_the_line_stands_alone(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    assert layout.wrapped(f"see {'x' * 40} there", indent=2) == ["  see", f"  {'x' * 40}", "  there"]
    assert layout.wrapped("", indent=2) == ["  "]


@pytest.mark.parametrize(
    ("terminal", "no_color", "styled"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_style_is_for_terminals_that_want_it(monkeypatch, terminal, no_color, styled):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    heading, first, *_ = layout.table(ROWS, marked=[1]).splitlines()
    assert heading.startswith("\033[1m") is styled
    assert first.startswith("\033[31m") is styled
