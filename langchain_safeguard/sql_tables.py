"""Making tables that several processes want at once, in files that are nobody else's business."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from langchain_safeguard.errors import MissingExtraError

try:
    from sqlalchemy import Connection, MetaData, func, inspect, select
    from sqlalchemy.engine import URL
    from sqlalchemy.schema import CreateIndex, CreateTable
except ModuleNotFoundError as error:
    raise MissingExtraError("sqlalchemy", "review") from error

_LOCK = 7_309_453_271
"""A number of ours, for PostgreSQL's advisory locks."""


def make_tables(connection: Connection, metadata: MetaData) -> None:
    """Make the tables that are missing; workers of one server, started together, do not collide."""
    known = inspect(connection)
    missing = [table for table in metadata.sorted_tables if not known.has_table(table.name)]
    if missing and connection.dialect.name == "postgresql":
        # There, IF NOT EXISTS does not keep two from making the same table.
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    for table in missing:
        connection.execute(CreateTable(table, if_not_exists=True))
        for index in table.indexes:
            connection.execute(CreateIndex(index, if_not_exists=True))


def make_private(url: URL) -> None:
    """Make an SQLite file that is not there yet so that only its owner may read it."""
    path = url.database
    if url.get_backend_name() == "sqlite" and path and not path.startswith("file:"):
        # If it cannot be made, the database says so.
        with suppress(OSError):
            os.close(os.open(Path(path), os.O_CREAT | os.O_WRONLY, 0o600))
