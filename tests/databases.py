"""A PostgreSQL server of our own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pgserver


@contextmanager
def postgresql_server() -> Iterator[Any]:
    """Start a server; not in pytest's folder, which a user other than root may not always enter."""
    with tempfile.TemporaryDirectory(prefix="safeguard", ignore_cleanup_errors=True) as folder:
        server = pgserver.get_server(Path(folder) / "data", cleanup_mode="delete")
        try:
            yield server
        finally:
            server.cleanup()
