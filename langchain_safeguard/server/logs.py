"""Logs as lines of JSON, with numbers and names and never a text that was checked."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The request that is being answered."""

logger = logging.getLogger("langchain_safeguard.server")


def log(event: str, level: int = logging.INFO, **facts: object) -> None:
    """Write one event with its facts."""
    logger.log(level, event, extra={"facts": facts})


def log_decision(record: Mapping[str, Any]) -> None:
    """Write an audit record as one event: the audit sink of a server."""
    facts = {key: value for key, value in record.items() if key != "time"}
    logging.getLogger("langchain_safeguard.audit").info("decision", extra={"facts": facts})


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of JSON; of an exception only its type."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        request = REQUEST_ID.get()
        if request is not None:
            line["request_id"] = request
        if record.exc_info and record.exc_info[0] is not None:
            # Its message, and those it was raised from, may hold a text that was checked.
            line["error"] = record.exc_info[0].__name__
        return json.dumps({**line, **getattr(record, "facts", {})}, default=str)


def configure_logging(level: str) -> None:
    """Write the logs of the whole process to standard error, as JSON.

    Args:
        level: The least level of this package's own events; of others' only warnings are written.
    """
    # What writes to standard error by itself, and not as JSON: read when transformers is imported.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.captureWarnings(True)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("langchain_safeguard").setLevel(level.upper())
