"""The tables in which questions and people's answers stand, and how a database that holds them is opened."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

try:
    import sqlalchemy as sql
    from sqlalchemy import exc
except ImportError as error:
    raise ImportError(
        "PreferenceStore: got no SQLAlchemy, in which labels are kept; expected it to be installed. Install it with "
        "`pip install 'lrl[labels]'`."
    ) from error

_WAIT = 30_000
"""Milliseconds that a writer waits for another one before it gives up."""

metadata = sql.MetaData()

prompts = sql.Table(
    "prompts",
    metadata,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("key", sql.String(255), nullable=False, unique=True),
    sql.Column("text", sql.Text, nullable=False),
    sql.Column("picture", sql.LargeBinary),  # PNG
    sql.Column("step", sql.Integer),  # training step at which it was asked
    sql.Column("asked_at", sql.String(40), nullable=False),  # UTC, ISO 8601
)
candidates = sql.Table(
    "candidates",
    metadata,
    sql.Column("prompt_id", sql.ForeignKey("prompts.id"), primary_key=True),
    sql.Column("position", sql.Integer, primary_key=True, autoincrement=False),
    sql.Column("text", sql.Text, nullable=False),
)
judgments = sql.Table(
    "judgments",
    metadata,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("key", sql.String(255), nullable=False, unique=True),
    sql.Column("prompt_id", sql.ForeignKey("prompts.id"), nullable=False, index=True),
    sql.Column("who", sql.String(255), nullable=False, index=True),
    sql.Column("ranks", sql.Text),  # JSON list in stored order of the candidates; NULL: skipped
    sql.Column("seconds", sql.Float),
    sql.Column("judged_at", sql.String(40), nullable=False),  # UTC, ISO 8601
    sql.Column("withdrawn_at", sql.String(40)),  # NULL: it counts
)


def ranks_of(stored: str | None) -> tuple[int, ...] | None:
    """The column `ranks` as numbers; None where the question was skipped."""
    return None if stored is None else tuple(json.loads(stored))


def open_engine(url: str) -> sql.Engine:
    """Open a database and make the tables that it lacks; ValueError in four parts where that cannot be.

    Args:
        url: SQLAlchemy URL, or the path of a SQLite file.
    """
    shown = url.partition("://")[0] + "://..."  # a URL may hold a password
    try:
        address = sql.make_url(url) if "://" in url else sql.URL.create("sqlite", database=str(Path(url).expanduser()))
        shown = address.render_as_string()
        engine = _engine(address)
    except (exc.ArgumentError, ImportError) as error:
        raise _unusable(shown, error) from error
    try:
        _make_tables(engine)
    except exc.SQLAlchemyError as error:
        engine.dispose()
        raise _unusable(shown, getattr(error, "orig", None) or error) from error
    return engine


def _unusable(shown: str, error: BaseException) -> ValueError:
    return ValueError(
        f"PreferenceStore: got {shown}, which cannot be used ({error}); expected a database of labels or the place of "
        "a new one: the path of a SQLite file in a folder that exists, or a SQLAlchemy URL such as "
        "sqlite:///labels.db. Correct it, or install the driver that it names."
    )


def _engine(address: sql.URL) -> sql.Engine:
    if address.get_backend_name() != "sqlite":
        return sql.create_engine(address, pool_pre_ping=True)
    in_memory = address.database in (None, "", ":memory:")
    pool = {"poolclass": sql.StaticPool, "connect_args": {"check_same_thread": False}} if in_memory else {}
    engine = sql.create_engine(address, **pool)
    sql.event.listen(engine, "connect", _configure_sqlite)
    sql.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # transactions begin where SQLAlchemy begins them, not at the driver's guess
    for pragma in (f"busy_timeout={_WAIT}", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: sql.Connection) -> None:
    # A writer takes the lock at once: one that first reads cannot wait for another writer, it fails.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")


@contextmanager
def writing(engine: sql.Engine) -> Iterator[sql.Connection]:
    """A transaction that writes: all of it is on disk when the block is left, or nothing."""
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        yield connection


def _make_tables(engine: sql.Engine) -> None:
    try:
        with writing(engine) as connection:
            metadata.create_all(connection)
    except exc.DBAPIError:  # another process makes them at this moment; what else it may be is raised again
        with writing(engine) as connection:
            metadata.create_all(connection)
    with engine.connect() as connection:  # another program's tables of these names have other columns
        for table in metadata.sorted_tables:
            connection.execute(sql.select(table).limit(0))


def insert_once(connection: sql.Connection, table: sql.Table, key: str, **values: Any) -> tuple[int, bool]:
    """Add a row unless its key is taken; the id of the row with this key, and whether it is new.

    Args:
        connection: Of a transaction that writes.
        table: One with columns `id` and `key`.
        key: What makes the row the same one.
        values: The other columns.
    """
    try:
        with connection.begin_nested():
            added = connection.execute(sql.insert(table).values(key=key, **values)).inserted_primary_key
    except exc.IntegrityError:
        found = connection.scalar(sql.select(table.c.id).where(table.c.key == key))
        if found is None:
            raise
        return found, False
    assert added is not None
    return added[0], True
