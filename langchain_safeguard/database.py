"""A database that several processes share: an SQLite file, or PostgreSQL."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random

from langchain_safeguard.errors import ConfigurationError, MissingExtraError, ReviewError

try:
    from sqlalchemy import (
        Connection,
        Engine,
        MetaData,
        create_engine,
        event,
        func,
        inspect,
        select,
    )
    from sqlalchemy.engine import URL, make_url
    from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
    from sqlalchemy.pool import NullPool
    from sqlalchemy.schema import CreateIndex, CreateTable
except ModuleNotFoundError as error:
    raise MissingExtraError("sqlalchemy", "review") from error

_LOCK = 7_309_453_271
"""A number of ours, for PostgreSQL's advisory locks."""


class Database:
    """Tables in a database; the processes that share it may all open it at once.

    Args:
        url: The path of an SQLite file, or a URL such as `sqlite:///reviews.db` or
            `postgresql://user@host/name`.
        metadata: The tables. Those that are missing are made.
        name: What it is, for messages: "review queue".
        timeout: The seconds to wait for it: to connect, or for others to finish writing.

    Attributes:
        shown: The URL without a password.

    Raises:
        ConfigurationError: A value is wrong.
        MissingExtraError: A package is missing for it.
        ReviewError: It cannot be reached.
    """

    def __init__(self, url: str | Path, metadata: MetaData, *, name: str, timeout: float) -> None:
        """Make the tables if they are not there."""
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
            raise ConfigurationError(f"timeout={timeout!r}; allowed: seconds above 0")
        parsed = _parsed(url, name)
        self.shown = parsed.render_as_string(hide_password=True)
        self._name = name
        with self._errors_named():
            if parsed.get_backend_name() == "postgresql":
                self._engine = _postgresql(parsed, timeout)
                _make_tables(self._engine, metadata)
            else:
                _make_sqlite(parsed, metadata, timeout)
                # From now on a file that is gone is an error; it is not made anew, and empty.
                self._engine = _sqlite(parsed, timeout, mode="rw")

    @contextmanager
    def connected(self) -> Iterator[Connection]:
        """Do something in one transaction.

        Raises:
            ReviewError: It cannot be done; nothing of it is.
        """
        with self._errors_named(), self._engine.begin() as connection:
            yield connection

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            # Not the message: it holds the statement, with the text.
            reason = type(getattr(error, "orig", None) or error).__name__
            raise ReviewError(
                f"the {self._name} at {self.shown} cannot be used ({reason}); is the database "
                "there, and may it be written?"
            ) from None


def _parsed(url: str | Path, name: str) -> URL:
    is_path = isinstance(url, Path) or (isinstance(url, str) and url and "://" not in url)
    try:
        parsed = URL.create("sqlite", database=str(url)) if is_path else make_url(cast(str, url))
    except (ArgumentError, ValueError, TypeError, AttributeError):
        raise ConfigurationError(
            f"the URL of the {name} cannot be read; allowed: a path, or a URL such as "
            "'sqlite:///file.db' or 'postgresql://user@host/name'"
        ) from None
    match parsed.get_backend_name():
        case "postgresql":
            return parsed.set(drivername="postgresql+psycopg")
        case "sqlite" if parsed.database in (None, "", ":memory:"):
            raise ConfigurationError(f"a {name} in memory is lost with the process: name a file")
        case "sqlite":
            path = _path(parsed)
            if path is not None and not path.parent.is_dir():
                raise ConfigurationError(f"{name} {path.name!r}: there is no {path.parent}")
            return parsed
        case other:
            raise ConfigurationError.unknown("database", other, ("sqlite", "postgresql"))


def _path(url: URL) -> Path | None:
    """Return where an SQLite file is, unless its URL is one in SQLite's own words."""
    database = url.database or ""
    return None if database.startswith("file:") else Path(database).absolute()


def _postgresql(url: URL, timeout: float) -> Engine:
    try:
        return create_engine(
            url,
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args={"connect_timeout": max(2, round(timeout))},
        )
    except ModuleNotFoundError as error:
        raise MissingExtraError("psycopg", "postgresql") from error


def _sqlite(url: URL, timeout: float, *, mode: str) -> Engine:
    if (path := _path(url)) is not None:
        url = url.set(database=path.as_uri())
    url = url.update_query_dict({"uri": "true", "mode": mode})
    # A connection that is kept would go on writing into a file that was deleted.
    engine = create_engine(
        url, poolclass=NullPool, hide_parameters=True, connect_args={"timeout": timeout}
    )

    @event.listens_for(engine, "connect")
    def settings(connection: Any, _record: Any) -> None:
        # What is committed outlives a power cut.
        connection.execute("PRAGMA synchronous=FULL")

    return engine


def _make_sqlite(url: URL, metadata: MetaData, timeout: float) -> None:
    """Make the file and its tables."""
    if (path := _path(url)) is not None:
        # So that only its owner may read it. If it cannot be made, the database says so.
        with suppress(OSError):
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    engine = _sqlite(url, timeout, mode="rwc")
    # SQLite does not wait for others before it changes the mode, whatever the timeout.
    patiently = Retrying(
        retry=retry_if_exception(_is_busy),
        wait=wait_random(0.01, 0.1),
        stop=stop_after_delay(timeout),
        reraise=True,
    )
    patiently(_write_ahead, engine)
    patiently(_make_tables, engine, metadata)


def _write_ahead(engine: Engine) -> None:
    """Choose a mode in which readers do not wait for a writer. The file remembers it."""
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")


def _is_busy(error: BaseException) -> bool:
    cause = error.orig if isinstance(error, DBAPIError) else None
    # The lower byte is the code; what is above tells more about it.
    return getattr(cause, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def _make_tables(engine: Engine, metadata: MetaData) -> None:
    """Make the tables that are missing; workers of one server, started together, do not collide."""
    with engine.begin() as connection:
        known = inspect(connection)
        missing = [table for table in metadata.sorted_tables if not known.has_table(table.name)]
        if missing and connection.dialect.name == "postgresql":
            # There, IF NOT EXISTS does not keep two from making the same table.
            connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
        for table in missing:
            connection.execute(CreateTable(table, if_not_exists=True))
            for index in table.indexes:
                connection.execute(CreateIndex(index, if_not_exists=True))
