"""How questions and judgments get into the tables: what is checked, and what the same key twice means."""

import json
import math
import uuid
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import NoReturn

from lrl_core.preferences.tables import candidates, insert_once, judgments, prompts, sql

_LONGEST_NAME = 200
"""Characters of a labeller's name or of a key."""


def add_question(
    connection: sql.Connection,
    prompt: str,
    texts: Sequence[str],
    *,
    picture: bytes | None = None,
    step: int | None = None,
    key: str | None = None,
) -> int:
    """`PreferenceStore.ask` within a transaction."""
    if not isinstance(texts, list | tuple) or len(texts) < 2:
        refuse(f"ask got candidates {texts!r}", "two answers or more", "Ask about several answers.")
    if picture is not None and not picture.startswith(b"\x89PNG"):
        refuse(f"ask got a picture that begins with {picture[:4]!r}", "a PNG file's bytes", "Convert it.")
    values = {"text": _text(prompt, "prompt"), "picture": picture, "step": step, "asked_at": now()}
    answers = [_text(text, "a candidate") for text in texts]
    id, new = insert_once(connection, prompts, _key(key), **values)
    if new:
        rows = [{"prompt_id": id, "position": i, "text": text} for i, text in enumerate(answers)]
        connection.execute(sql.insert(candidates), rows)
    return id


def add_judgment(
    connection: sql.Connection,
    question: int,
    ranks: Sequence[int] | None,
    *,
    who: str,
    seconds: float | None = None,
    key: str | None = None,
    when: str | None = None,
) -> int:
    """`PreferenceStore.judge` within a transaction; `when` (UTC, ISO 8601) is of judgments made elsewhere."""
    _check_name(who)
    if seconds is not None and not (_is_number(seconds) and math.isfinite(seconds) and seconds >= 0):
        refuse(f"judge got seconds={seconds!r}", "a finite number >= 0, or none", "Send how long it took.")
    owned = sql.select(sql.func.count()).where(candidates.c.prompt_id == question)
    count = connection.scalar(owned) if is_id(question) else 0
    if not count:
        no_question(question)
    stored = None if ranks is None else json.dumps(_checked(ranks, count))
    values = {"prompt_id": question, "who": who, "ranks": stored, "seconds": seconds, "judged_at": when or now()}
    id, new = insert_once(connection, judgments, _key(key), **values)
    if not new:
        first = connection.execute(sql.select(judgments).where(judgments.c.id == id)).one()
        if (first.prompt_id, first.who) != (question, who):
            got = f"judge got the key {key!r} for question {question} by {who!r}"
            taken = f"that of question {first.prompt_id} by {first.who!r}"
            refuse(f"{got}, which is {taken}", "a key of its own for every judgment", "Make a new one.")
    return id


def withdraw_judgment(connection: sql.Connection, judgment: int, who: str) -> None:
    """`PreferenceStore.withdraw` within a transaction."""
    owner = sql.select(judgments.c.who).where(judgments.c.id == judgment)
    made_by = connection.scalar(owner) if is_id(judgment) else None
    if made_by is None or made_by != who:
        got = "which it does not hold" if made_by is None else f"which is one of {made_by!r}"
        refuse(f"withdraw got judgment {judgment!r}, {got}", f"a judgment of {who!r}", "Name one of your own.")
    change = sql.update(judgments).where(judgments.c.id == judgment, judgments.c.withdrawn_at.is_(None))
    connection.execute(change.values(withdrawn_at=now()))


def _checked(ranks: Sequence[int], count: int) -> list[int]:
    """Ranks of that many candidates; the best have 0."""
    good = isinstance(ranks, list | tuple) and len(ranks) == count and all(type(rank) is int for rank in ranks)
    if not good or min(ranks) != 0:
        expected = f"{count} whole numbers, one for each candidate, 0 for the best and equal ones for ties"
        refuse(f"judge got ranks={ranks!r}", expected, "Rank every candidate, or send none to skip.")
    return list(ranks)


def _check_name(who: str) -> None:
    if not isinstance(who, str) or not 0 < len(who.strip()) <= len(who) <= _LONGEST_NAME or not who.isprintable():
        refuse(f"got who={who!r}", f"a name of 1 to {_LONGEST_NAME} printable letters", "Say who judges.")


def _key(key: str | None) -> str:
    if key is None:
        return uuid.uuid4().hex
    if not isinstance(key, str) or not 0 < len(key) <= _LONGEST_NAME or not key.isprintable():
        refuse(f"got key={key!r}", f"a text of 1 to {_LONGEST_NAME} printable letters", "Shorten it.")
    return key


def _text(text: str, what: str) -> str:
    try:
        text.encode()
    except (AttributeError, UnicodeEncodeError):
        refuse(f"ask got {what} {text!r}", "a text that UTF-8 can write", "Replace what it cannot write.")
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")  # PostgreSQL keeps no NUL


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_id(value: object) -> bool:
    """Whether it may be the id of a row; databases refuse to look others up."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31


def now() -> str:
    """This moment in UTC, ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")


def no_question(id: object) -> NoReturn:
    """The error about a question that was never asked."""
    refuse(f"got question {id!r}, which it does not hold", "the id of one of its questions", "Ask it first.")


def refuse(got: str, expected: str, todo: str) -> NoReturn:
    """The error in four parts."""
    raise ValueError(f"PreferenceStore: {got}; expected {expected}. {todo}")
