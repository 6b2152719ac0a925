"""Tables of yes/no facts: rows are objects, columns are questions."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NoReturn

from lrl_plugins.tasks.files import read_text
from lrl_plugins.tasks.goal_oriented_questions.wording import END, pieces, worded

_EXPECTED = 'a table: {"items": [names], "predicates": [{"question": "..."}], "answers": ["0101", ...]}'


@dataclass(frozen=True)
class Table:
    """Objects, questions, and the answer to each question about each object."""

    items: tuple[str, ...]
    """Names of the objects, all different."""
    questions: tuple[str, ...]
    """As a questioner says them, all different."""
    answers: tuple[str, ...]
    """One string per object, one digit per question: 1 = yes, 0 = no."""


def built_in() -> Table:
    """Eight objects with three binary attributes: every combination of colour, size and shape."""
    kinds = list(product(("red", "blue"), ("large", "small"), ("ball", "box")))
    return Table(
        items=tuple(f"{size} {colour} {shape}" for colour, size, shape in kinds),
        questions=("is it red ?", "is it large ?", "is it round ?"),
        answers=tuple("".join(str(int(word in ("red", "large", "ball"))) for word in kind) for kind in kinds),
    )


def read_table(path: str) -> Table:
    """A table in a JSON file; ValueError with the place of the fault where it is malformed.

    Args:
        path: The file: {"items": [names], "predicates": [{"key", "question"}], "answers": [one string of 0 and 1 per
            item, one digit per predicate]}; .json or .json.gz.
    """
    try:
        data = json.loads(read_text(path, "AttributeTable", _EXPECTED))
    except json.JSONDecodeError as error:
        _refuse(path, f"no JSON ({error})", "Copy the file again")
    lists = {name: data.get(name) if isinstance(data, dict) else None for name in ("items", "predicates", "answers")}
    absent = [name for name, value in lists.items() if not isinstance(value, list) or not value]
    if absent:
        _refuse(path, f"no filled list {' and '.join(map(repr, absent))}", "Add it")
    items, questions = _items(path, lists["items"]), _questions(path, lists["predicates"])
    return Table(items, questions, _answers(path, lists["answers"], items, questions))


def _items(path: str, items: Any) -> tuple[str, ...]:
    wrong = [item for item in items if not isinstance(item, str) or not item.strip()]
    if wrong:
        _refuse(path, f"the item {wrong[0]!r}, which is no name", "Correct it")
    if twice := _repeated(items):
        _refuse(path, f"the item {twice!r} twice", "Give every object a name of its own")
    if len(items) < 2:
        _refuse(path, "a single item, so that there is nothing to find out", "Add objects")
    return tuple(items)


def _questions(path: str, predicates: Any) -> tuple[str, ...]:
    questions = []
    for number, predicate in enumerate(predicates):
        question = predicate.get("question") if isinstance(predicate, dict) else None
        if not isinstance(question, str):
            _refuse(path, f"no text 'question' in predicate {number}", "Add it")
        words = pieces(question)
        if words.count(END) != 1 or words[-1] != END:
            _refuse(path, f"the question {question!r}, which does not end with its only question mark", "Reword it")
        questions.append(worded(question))
    if twice := _repeated(questions):
        _refuse(path, f"the question {twice!r} twice", "Reword one of them")
    return tuple(questions)


def _answers(path: str, answers: Any, items: Sequence[str], questions: Sequence[str]) -> tuple[str, ...]:
    if len(answers) != len(items):
        _refuse(path, f"{len(answers)} answers for {len(items)} items", "Give each item one string")
    for item, row in zip(items, answers, strict=True):
        if not isinstance(row, str) or len(row) != len(questions) or set(row) - {"0", "1"}:
            shown = repr(row if len(str(row)) < 40 else f"{str(row)[:40]}...")
            _refuse(path, f"the answers {shown} for {item!r}", f"Give {len(questions)} digits, each 0 or 1")
    return tuple(answers)


def _repeated(names: Sequence[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _refuse(path: str, got: str, todo: str) -> NoReturn:
    raise ValueError(f"AttributeTable: got {path} with {got}; expected {_EXPECTED}. {todo}.")
