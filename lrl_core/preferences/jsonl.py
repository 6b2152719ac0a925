"""Labels as JSON Lines: out of one store, into another, and in from elsewhere."""

import base64
import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, TextIO, cast

from lrl_core.preferences.store import PreferenceStore
from lrl_core.preferences.tables import candidates, judgments, prompts, sql
from lrl_core.preferences.writes import add_judgment, add_question, withdraw_judgment

ROW = (
    'a JSON object with "prompt" and either "chosen" and "rejected", or "candidates" and one of "ranks" (0 = best, '
    'null = skipped) and "best" (which candidate, from 0)'
)
_STRANGER = "import"
"""Who judged where a row does not say."""


class _Row(NamedTuple):
    """A line, checked."""

    prompt: str
    candidates: tuple[str, ...]
    ranks: tuple[int, ...] | None
    picture: bytes | None
    rest: dict[str, Any]


def export_jsonl(store: PreferenceStore, path: Path | str) -> int:
    """Write one row per judgment, the skipped and the withdrawn too; how many there are.

    A row has `prompt`, `candidates`, `ranks` (0 = best; null: skipped), `who`, `when` (UTC), `seconds`, `skipped`,
    `withdrawn`, `step`, `picture` (PNG in base64, or null) and `key`, by which an import knows it again.

    Args:
        store: Where the judgments are.
        path: File to write; gzipped where its name ends in .gz.
    """
    questions = {question.id: question for question in store.questions()}
    every = store.judgments()
    with _open(Path(path), "wt") as file:
        for one in every:
            question = questions[one.question]
            row = {
                "prompt": question.prompt,
                "candidates": question.candidates,
                "ranks": one.ranks,
                "who": one.who,
                "when": one.when,
                "seconds": one.seconds,
                "skipped": one.ranks is None,
                "withdrawn": one.withdrawn,
                "step": question.step,
                "picture": question.picture and base64.b64encode(question.picture).decode(),
                "key": one.key,
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return len(every)


def import_jsonl(store: PreferenceStore, path: Path | str) -> int:
    """Add the judgments of a file; how many were new. Importing twice adds nothing; a wrong line, and nothing is added.

    Questions of the same prompt, candidates and picture are one question. Rows without `key` are known again by what
    they say; equal rows in one file are judgments of their own.

    Args:
        store: Where they go.
        path: Rows as `export_jsonl` writes them, or with `prompt`, `chosen` and `rejected`, or with `prompt`,
            `candidates` and `ranks` or `best`; gzipped where its name ends in .gz.
    """
    with store.transaction() as connection:
        known = _Questions(connection)
        before = _count(connection)
        for where, row, key in _keyed(_rows(Path(path))):
            try:
                _add(connection, known, row, key)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from error
        return _count(connection) - before


@contextmanager
def _open(path: Path, mode: Literal["rt", "wt"]) -> Iterator[TextIO]:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, mode, encoding="utf-8") as file:
            yield cast(TextIO, file)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        what = "readable" if mode == "rt" else "writable"
        raise ValueError(
            f"Labels: got {path}, which is not {what} ({error}); expected JSON lines. Correct it."
        ) from error


def _rows(path: Path) -> Iterator[tuple[str, _Row]]:
    with _open(path, "rt") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                where = f"{path}, line {number}"
                try:
                    yield where, _row(json.loads(line))
                except (ValueError, RecursionError) as error:
                    got = f"no JSON ({error})" if isinstance(error, json.JSONDecodeError) else str(error)
                    raise ValueError(
                        f"{where}: got {got}; expected {ROW}. Correct the line or leave it out."
                    ) from error


def _row(row: Any) -> _Row:
    """A line, checked; the error says what was got."""
    if not isinstance(row, dict):
        raise ValueError(f"a {type(row).__name__}")
    texts: Any = row["candidates"] if "candidates" in row else [row.get("chosen"), row.get("rejected")]
    texts_good = isinstance(texts, list) and all(isinstance(text, str) for text in texts)
    if not isinstance(row.get("prompt"), str) or not texts_good:
        raise ValueError(f"the columns {sorted(row)}" + ("" if texts_good else " without the texts of all answers"))
    for column, kind in (("step", int), ("when", str), ("key", str)):
        if type(row.get(column)) not in (kind, type(None)):
            raise ValueError(f"{column} {row[column]!r}")
    if row.get("when") is not None:
        datetime.fromisoformat(row["when"].replace("Z", "+00:00"))
    try:
        picture = None if row.get("picture") is None else base64.b64decode(row["picture"], validate=True)
    except (ValueError, TypeError) as error:
        raise ValueError(f"a picture that is not base64 ({error})") from error
    return _Row(row["prompt"], tuple(texts), _ranks(row, len(texts)), picture, row)


def _ranks(row: dict[str, Any], count: int) -> tuple[int, ...] | None:
    """What the row says about its candidates; whether the numbers are good ranks is checked where they are written."""
    if "candidates" not in row:
        return (0, 1)
    if "best" in row:
        best = row["best"]
        if type(best) is not int or not 0 <= best < count:
            raise ValueError(f"best {best!r} of {count} candidates")
        return tuple(int(i != best) for i in range(count))
    if not isinstance(row.get("ranks", ""), list | None):
        raise ValueError(f"ranks {row['ranks']!r}" if "ranks" in row else "candidates without ranks")
    return None if row["ranks"] is None else tuple(row["ranks"])


def _keyed(rows: Iterable[tuple[str, _Row]]) -> Iterator[tuple[str, _Row, str]]:
    """Every row with what makes it the same judgment in two imports."""
    seen: Counter[str] = Counter()
    for where, row in rows:
        said = _digest(row.rest.get("who"), row.prompt, row.candidates, row.ranks, _digest(str(row.picture)))
        seen[said] += 1
        key = row.rest.get("key")
        yield where, row, f"row/{said}/{seen[said]}" if key is None else key


def _add(connection: sql.Connection, known: "_Questions", row: _Row, key: str) -> None:
    who = row.rest.get("who", _STRANGER)
    made = connection.execute(sql.select(judgments.c.id, judgments.c.who).where(judgments.c.key == key)).first()
    if made is None:
        question = known.id(row)
        seconds, when = row.rest.get("seconds"), row.rest.get("when")
        id = add_judgment(connection, question, row.ranks, who=who, seconds=seconds, key=key, when=when)
    else:
        id, who = made
    if row.rest.get("withdrawn"):
        withdraw_judgment(connection, id, who)


class _Questions:
    """The questions of a store, found by what they ask.

    Args:
        connection: Of the transaction in which the import happens.
    """

    def __init__(self, connection: sql.Connection) -> None:
        self._connection = connection
        answers: dict[int, list[str]] = {}
        for row in connection.execute(sql.select(candidates).order_by(candidates.c.prompt_id, candidates.c.position)):
            answers.setdefault(row.prompt_id, []).append(row.text)
        self._ids: dict[tuple[str, ...], list[int]] = {}
        for id, text in connection.execute(sql.select(prompts.c.id, prompts.c.text).order_by(prompts.c.id)):
            self._ids.setdefault((text, *answers[id]), []).append(id)

    def id(self, row: _Row) -> int:
        """That of the question of a row, which is asked where nobody has asked it."""
        ids = self._ids.setdefault((row.prompt, *row.candidates), [])
        for id in ids:
            if self._connection.scalar(sql.select(prompts.c.picture).where(prompts.c.id == id)) == row.picture:
                return id
        step = row.rest.get("step")
        ids.append(add_question(self._connection, row.prompt, row.candidates, picture=row.picture, step=step))
        return ids[-1]


def _count(connection: sql.Connection) -> int:
    return connection.scalar(sql.select(sql.func.count()).select_from(judgments)) or 0


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:40]
