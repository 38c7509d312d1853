"""The database of a review queue: where it is, and how it is used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from langchain_safeguard.errors import ConfigurationError, MissingExtraError, ReviewError
from langchain_safeguard.review.tables import METADATA
from langchain_safeguard.sql_tables import make_private, make_tables

try:
    from sqlalchemy import Connection, create_engine, event
    from sqlalchemy.engine import URL, make_url
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError
    from sqlalchemy.pool import NullPool
except ModuleNotFoundError as error:
    raise MissingExtraError("sqlalchemy", "review") from error


class Database:
    """An SQLite file or a PostgreSQL database that has the table of tickets.

    Args:
        url: Where it is; see `ReviewQueue`.
        timeout: The seconds to wait for it.

    Attributes:
        shown: The URL without a password.

    Raises:
        ConfigurationError: The URL is wrong.
        MissingExtraError: A package is missing for it.
        ReviewError: It cannot be reached.
    """

    def __init__(self, url: str | Path | None, timeout: float) -> None:
        """Make the table if there is none."""
        parsed = _url(url)
        self.shown = parsed.render_as_string(hide_password=True)
        self._engine = _engine(parsed, timeout)
        make_private(parsed)
        with self.connected() as connection:
            make_tables(connection, METADATA)
        if parsed.get_backend_name() == "sqlite":
            # From now on a file that is gone is an error; it is not made anew, and empty.
            self._engine = _engine(parsed.update_query_dict({"mode": "rw"}), timeout)

    @contextmanager
    def connected(self) -> Iterator[Connection]:
        """Do something in one transaction.

        Raises:
            ReviewError: It cannot be done; nothing of it is.
        """
        try:
            with self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            # Not the message: it holds the statement, with the text.
            reason = type(getattr(error, "orig", None) or error).__name__
            raise ReviewError(
                f"the review queue at {self.shown} cannot be used ({reason}); is the database "
                "there, and may it be written?"
            ) from None


def _url(url: str | Path | None) -> URL:
    if url is None:
        url = Path.home() / ".langchain-safeguard" / "reviews.db"
        url.parent.mkdir(mode=0o700, exist_ok=True)
    if isinstance(url, Path) or (isinstance(url, str) and url and "://" not in url):
        path = Path(url).absolute()
        if not path.parent.is_dir():
            raise ConfigurationError(f"review queue {str(url)!r}: there is no {path.parent}")
        return URL.create("sqlite", database=str(path))
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError, TypeError, AttributeError):
        raise ConfigurationError(
            "the URL of the review queue cannot be read; allowed: a path, or a URL such as "
            "'sqlite:///reviews.db' or 'postgresql://user@host/name'"
        ) from None
    match parsed.get_backend_name():
        case "sqlite" if parsed.database not in (None, "", ":memory:"):
            return parsed
        case "postgresql":
            return parsed.set(drivername="postgresql+psycopg")
        case "sqlite":
            raise ConfigurationError(
                "a review queue in memory is lost with the process: name a file"
            )
        case other:
            raise ConfigurationError.unknown("database", other, ("sqlite", "postgresql"))


def _engine(url: URL, timeout: float) -> Any:
    if url.get_backend_name() == "postgresql":
        try:
            return create_engine(
                url,
                pool_pre_ping=True,
                hide_parameters=True,
                connect_args={"connect_timeout": max(2, round(timeout))},
            )
        except ModuleNotFoundError as error:
            raise MissingExtraError("psycopg", "postgresql") from error
    if url.database and not url.database.startswith("file:"):
        url = url.set(database=f"file:{Path(url.database).absolute()}")
    url = url.update_query_dict({"uri": "true"})
    # A connection that is kept would go on writing into a file that was deleted.
    engine = create_engine(
        url, poolclass=NullPool, hide_parameters=True, connect_args={"timeout": timeout}
    )

    @event.listens_for(engine, "connect")
    def settings(connection: Any, _record: Any) -> None:
        # Readers do not wait for a writer, and what is committed outlives a power cut.
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    return engine
