"""The tables of a profile and the transactions on them.

The tables and all statements elsewhere are plain SQLAlchemy, so that another database is one URL
and one entry of ``_DIALECTS`` away; everything only SQLite understands is in ``_Sqlite``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    JSON,
    CheckConstraint,
    Column,
    Connection,
    Double,
    Engine,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    inspect,
)
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from .types import ProfileError

SCHEMA_VERSION = 1
_WRITES = "palate_writes"
_BUSY_SECONDS = 30

tables = MetaData()

revisions = Table(
    "revisions",
    tables,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("parent", ForeignKey("revisions.number")),
    Column("created", Double, nullable=False),
    Column("ratings", Integer, nullable=False),
    Column("report", JSON, nullable=False),
    Column("metadata", JSON, nullable=False),
    Column("sha256", String(64)),
)

queries = Table(
    "queries",
    tables,
    Column("sequence", Integer, primary_key=True),
    Column("id", String(32), nullable=False, unique=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("round", Integer, nullable=False),
    Column("state", String(8), nullable=False, index=True),
    Column("kinds", JSON, nullable=False),
    Column("display_order", JSON, nullable=False),
    Column("prompts", JSON, nullable=False),
    Column("plan", JSON(none_as_null=True)),
    Column("created", Double, nullable=False),
    Column("asked_revision", ForeignKey("revisions.number"), nullable=False),
    Column("answered", Double),
    Column("answer", JSON(none_as_null=True)),
    Column("source", String(16)),
    Column("labels", Integer, nullable=False, default=0),
    Column("used_by", ForeignKey("revisions.number")),
    CheckConstraint("state IN ('pending', 'answered', 'used', 'skipped')", name="known_state"),
    CheckConstraint("(state = 'pending') = (answer IS NULL)", name="answer_unless_pending"),
    CheckConstraint("(state = 'used') = (used_by IS NOT NULL)", name="used_by_a_revision"),
)

active = Table(  # one row: which revision is in use
    "active",
    tables,
    Column("id", Integer, CheckConstraint("id = 1"), primary_key=True, autoincrement=False),
    Column("revision", ForeignKey("revisions.number"), nullable=False),
)

settings = Table(
    "settings",
    tables,
    Column("key", String(64), primary_key=True),
    Column("value", JSON, nullable=False),
)


class _Sqlite:
    """Settings and statements that only SQLite has."""

    @staticmethod
    def prepare(engine: Engine) -> None:
        event.listen(engine, "connect", _Sqlite._connected)
        event.listen(engine, "begin", _Sqlite._begin)

    @staticmethod
    def _connected(connection: Any, record: object) -> None:
        connection.isolation_level = None  # transactions begin in _begin, not by the driver's guess
        for pragma in (
            f"busy_timeout = {_BUSY_SECONDS * 1000}",
            "journal_mode = WAL",
            "synchronous = FULL",  # a commit that returned survives a power cut
            "fullfsync = ON",  # the same on macOS
            "foreign_keys = ON",
        ):
            connection.execute(f"PRAGMA {pragma}").close()

    @staticmethod
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(_WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    @staticmethod
    def version(connection: Connection) -> int:
        return int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())

    @staticmethod
    def set_version(connection: Connection, version: int) -> None:
        connection.exec_driver_sql(f"PRAGMA user_version = {version:d}")


_DIALECTS = {"sqlite": _Sqlite}


class Database:
    """Transactions on one profile's database; safe to use from several threads.

    ``name`` is the profile's, for messages. Every database error inside a transaction becomes a
    ProfileError, and the transaction leaves no trace.
    """

    def __init__(self, url: URL, name: str) -> None:
        self._name = name
        self._place = url.database
        self._writing = threading.Lock()
        self._engine: Engine | None = create_engine(url, connect_args={"timeout": _BUSY_SECONDS})
        self._dialect = _DIALECTS[self._engine.dialect.name]
        self._dialect.prepare(self._engine)

    @property
    def closed(self) -> bool:
        return self._engine is None

    def is_new(self) -> bool:
        """Return whether nothing was ever kept here.

        Raises ProfileError if a newer Palate, or another program, wrote this database.
        """
        with self.read() as connection:
            version = self._dialect.version(connection)
            empty = not inspect(connection).get_table_names()
        if version > SCHEMA_VERSION:
            raise ProfileError(
                f"The profile {self._name!r} was written by a newer Palate (format {version}; this "
                f"one knows {SCHEMA_VERSION}). Update Palate, or pick another profile name."
            )
        if version == 0 and not empty:
            raise ProfileError(
                f"{self._place} is a database of another program, not a taste profile. Move it "
                "away, or pick another profile name."
            )
        return version == 0

    def create(self) -> None:
        """Make the tables, with revision 0 (the base model) active, in one transaction."""
        with self.write() as connection:
            tables.create_all(connection)
            base = {"number": 0, "created": time.time(), "ratings": 0, "report": {}, "metadata": {}}
            connection.execute(revisions.insert().values(base))
            connection.execute(active.insert().values(id=1, revision=0))
            self._dialect.set_version(connection, SCHEMA_VERSION)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one moment of the database."""
        with self._errors(), self._connection() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that changes the database; on disk when the block has ended."""
        with self._writing, self._errors(), self._connection() as connection:
            connection.execution_options(**{_WRITES: True})
            with connection.begin():
                yield connection

    def close(self) -> None:
        """Let go of the database's files, after the last write; later calls raise ProfileError."""
        with self._writing:
            if self._engine is not None:
                self._engine.dispose()
                self._engine = None

    def _connection(self) -> Connection:
        engine = self._engine
        if engine is None:
            raise ProfileError(
                f"The profile {self._name!r} was closed meanwhile. Run the workflow again."
            )
        return engine.connect()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            reason = getattr(error, "orig", None) or error
            raise ProfileError(
                f"The database of the profile {self._name!r} cannot be used ({reason}). Check that "
                f"no other program has {self._place} open and that its disk has free space; if the "
                "file is damaged, put it back from a backup or pick another profile name."
            ) from error
