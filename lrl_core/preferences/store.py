"""What people are asked and what they answer, in a database that trainings and labellers share. It needs no torch."""

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lrl_core.preferences import tables
from lrl_core.preferences.tables import candidates, judgments, prompts, sql
from lrl_core.preferences.writes import add_judgment, add_question, is_id, no_question, withdraw_judgment

if TYPE_CHECKING:
    from lrl_core.preferences.comparison import Comparison


@dataclass(frozen=True)
class Question:
    """A prompt and the answers among which somebody is to choose."""

    id: int
    """Number in the store, from 1."""
    prompt: str
    """What was to be answered."""
    candidates: tuple[str, ...]
    """Answers in stored order, two or more: ranks are given in this order."""
    picture: bytes | None
    """PNG that belongs to the prompt; None without one."""
    step: int | None
    """Training step at which it was asked; None where no training asked."""


@dataclass(frozen=True)
class Judgment:
    """What somebody said about a question."""

    id: int
    """Number in the store, from 1, in the order in which judgments were made."""
    question: int
    """Which question."""
    who: str
    """Name of the labeller."""
    ranks: tuple[int, ...] | None
    """Of the candidates in stored order, 0 = best, equal = tie; None: skipped."""
    seconds: float | None
    """How long it took; None where nobody measured."""
    when: str
    """UTC, ISO 8601."""
    withdrawn: bool
    """Taken back: kept, but no longer counted."""
    key: str
    """What makes it the same judgment when it is sent twice."""


@dataclass(frozen=True)
class Progress:
    """How far a labeller has got."""

    answered: int
    """Questions that this labeller has judged."""
    skipped: int
    """Questions that this labeller has skipped."""
    open: int
    """Questions that wait for this labeller."""
    total: int
    """All questions."""
    seconds: float | None
    """Median time of this labeller's answers; None where none was measured."""


_COLUMNS_BUT_PICTURE = [column for column in prompts.c if column.name != "picture"]
_NOT_WITHDRAWN = judgments.c.withdrawn_at.is_(None)
_COUNTED = sql.and_(_NOT_WITHDRAWN, judgments.c.ranks.is_not(None))


class PreferenceStore:
    """Questions and judgments in a database: safe for several processes, a judgment is on disk when judge() returns.

    SQLite serves any number of processes of one machine (its file must not lie on a network drive); for labellers on
    several machines let `lrl label` serve the page, or name another database. Errors are ValueErrors in four parts.

    Args:
        url: SQLAlchemy URL such as "sqlite:///labels.db", or the path of a SQLite file; tables are made where missing.
    """

    def __init__(self, url: str) -> None:
        self._engine = tables.open_engine(url)

    def transaction(self) -> AbstractContextManager[sql.Connection]:
        """Several writes that succeed or fail together: hand the connection to `add_question`, `add_judgment`."""
        return tables.writing(self._engine)

    def ask(
        self,
        prompt: str,
        candidates: Sequence[str],
        *,
        picture: bytes | None = None,
        step: int | None = None,
        key: str | None = None,
    ) -> int:
        """Add a question; its id. The same key twice is one question: the first one that was asked.

        Args:
            prompt: What was to be answered.
            candidates: Two or more answers.
            picture: PNG that belongs to the prompt.
            step: Training step.
            key: What makes it the same question; None: always a new one.
        """
        with self.transaction() as connection:
            return add_question(connection, prompt, candidates, picture=picture, step=step, key=key)

    def judge(
        self,
        question: int,
        ranks: Sequence[int] | None,
        *,
        who: str,
        seconds: float | None = None,
        key: str | None = None,
    ) -> int:
        """Add a judgment; its id. The same key twice is one judgment: the first one that was made.

        Args:
            question: Id of the question.
            ranks: Of the candidates in stored order, 0 = best, equal = tie; None: skipped.
            who: Name of the labeller.
            seconds: How long it took.
            key: What makes it the same judgment; None: always a new one.
        """
        with self.transaction() as connection:
            return add_judgment(connection, question, ranks, who=who, seconds=seconds, key=key)

    def withdraw(self, judgment: int, who: str) -> None:
        """Take a judgment back: it is kept, but no longer counted; twice is once.

        Args:
            judgment: Its id.
            who: The labeller who made it.
        """
        with self.transaction() as connection:
            withdraw_judgment(connection, judgment, who)

    def comparisons(self, until: int | None = None) -> "list[Comparison]":
        """Every judgment that counts (neither skipped nor withdrawn), in order; `id` is "question/judgment".

        Args:
            until: Highest judgment id to look at; None: all.
        """
        from lrl_core.preferences.comparison import Comparison  # imports torch, which labelling does not need

        counted = [one for one in self.judgments(until) if one.ranks is not None and not one.withdrawn]
        questions = {question.id: question for question in self._questions(sql.select(*_COLUMNS_BUT_PICTURE))}
        return [
            Comparison(
                prompt=questions[one.question].prompt,
                candidates=questions[one.question].candidates,
                ranks=one.ranks,
                id=f"{one.question}/{one.id}",
            )
            for one in counted
            if one.ranks is not None
        ]

    def judgments(self, until: int | None = None) -> list[Judgment]:
        """Every judgment in order, the skipped and the withdrawn too.

        Args:
            until: Highest judgment id to look at; None: all.
        """
        query = sql.select(judgments).order_by(judgments.c.id)
        with self._engine.connect() as connection:
            rows = connection.execute(query if until is None else query.where(judgments.c.id <= until)).all()
        return [_judgment(row) for row in rows]

    def judgment(self, id: int) -> Judgment | None:
        """The judgment with this id; None where there is none."""
        if not is_id(id):
            return None
        with self._engine.connect() as connection:
            row = connection.execute(sql.select(judgments).where(judgments.c.id == id)).first()
        return None if row is None else _judgment(row)

    def last(self, who: str, question: int | None = None) -> Judgment | None:
        """The latest judgment of a labeller that is not withdrawn: what an undo takes back.

        Args:
            who: Name of the labeller.
            question: Only of this question; None: of all.
        """
        mine = sql.select(judgments).where(judgments.c.who == who, _NOT_WITHDRAWN)
        if question is not None:
            mine = mine.where(judgments.c.prompt_id == question)
        with self._engine.connect() as connection:
            row = connection.execute(mine.order_by(judgments.c.id.desc()).limit(1)).first()
        return None if row is None else _judgment(row)

    def identity(self) -> str:
        """What tells this store from another one, made of its first question; "" before there is one."""
        first = sql.select(prompts.c.key, prompts.c.asked_at).order_by(prompts.c.id).limit(1)
        with self._engine.connect() as connection:
            row = connection.execute(first).first()
        return "" if row is None else hashlib.sha256("/".join(row).encode()).hexdigest()[:16]

    def version(self) -> int:
        """A number that grows by one with every judgment and with every withdrawal."""
        count = sql.select(sql.func.count() + sql.func.count(judgments.c.withdrawn_at)).select_from(judgments)
        with self._engine.connect() as connection:
            return connection.scalar(count) or 0

    def questions(self, open_for: str | None = None, limit: int | None = None) -> list[Question]:
        """Questions, the oldest first.

        Args:
            open_for: Only those that this labeller has neither judged nor skipped; those that the fewest others have
                judged come first.
            limit: At most so many.
        """
        query = sql.select(prompts)
        if open_for is not None:
            others = sql.select(sql.func.count()).where(_COUNTED, judgments.c.prompt_id == prompts.c.id)
            query = query.where(~_of(open_for)).order_by(others.scalar_subquery())
        return self._questions(query.order_by(prompts.c.id).limit(limit))

    def question(self, id: int) -> Question:
        """The question with this id; ValueError where there is none."""
        found = self._questions(sql.select(prompts).where(prompts.c.id == id)) if is_id(id) else []
        return found[0] if found else no_question(id)

    def _questions(self, query: "sql.Select[tuple[object, ...]]") -> list[Question]:
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
            texts: dict[int, list[str]] = {}
            answers = sql.select(candidates).order_by(candidates.c.prompt_id, candidates.c.position)
            if len(rows) <= 100:  # databases allow so many parameters in a query at least
                answers = answers.where(candidates.c.prompt_id.in_([row.id for row in rows]))
            for answer in connection.execute(answers):
                texts.setdefault(answer.prompt_id, []).append(answer.text)
        return [
            Question(row.id, row.text, tuple(texts[row.id]), getattr(row, "picture", None), row.step) for row in rows
        ]

    def progress(self, who: str) -> Progress:
        """How far a labeller has got; all counts are of one moment."""
        mine = sql.select(judgments.c.ranks, judgments.c.seconds).where(judgments.c.who == who, _NOT_WITHDRAWN)
        with self._engine.connect() as connection:
            made = connection.execute(mine).all()
            total = connection.scalar(sql.select(sql.func.count()).select_from(prompts)) or 0
            waiting = sql.select(sql.func.count()).select_from(prompts).where(~_of(who))
            left = connection.scalar(waiting) or 0
        answered = [row for row in made if row.ranks is not None]
        times = sorted(row.seconds for row in answered if row.seconds is not None)
        middle = (times[(len(times) - 1) // 2] + times[len(times) // 2]) / 2 if times else None
        return Progress(len(answered), len(made) - len(answered), left, total, middle)

    def close(self) -> None:
        """Close the connections to the database."""
        self._engine.dispose()


def _of(who: str) -> "sql.ColumnElement[bool]":
    """Whether this labeller has judged or skipped a question."""
    mine = sql.select(judgments.c.id).where(judgments.c.prompt_id == prompts.c.id, judgments.c.who == who)
    return sql.exists(mine.where(_NOT_WITHDRAWN))


def _judgment(row: "sql.Row[tuple[object, ...]]") -> Judgment:
    return Judgment(
        id=row.id,
        question=row.prompt_id,
        who=row.who,
        ranks=tables.ranks_of(row.ranks),
        seconds=row.seconds,
        when=row.judged_at,
        withdrawn=row.withdrawn_at is not None,
        key=row.key,
    )
