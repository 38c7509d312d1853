"""Records of what was decided: one per decision, without user text unless asked for."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from langchain_safeguard.decision import Decision

AuditSink = Callable[[Mapping[str, Any]], None]
"""Takes one record. It may be called from many threads at once."""

logger = logging.getLogger("langchain_safeguard.audit")


def audit_record(decision: Decision, *, pending: bool, text: str | None = None) -> dict[str, Any]:
    """Make the record of a decision.

    Args:
        decision: What was decided.
        pending: Whether an escalation is still to come; its outcome makes another record of the
            same `decision_id`.
        text: The checked text, where it is to be kept.
    """
    record = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        **decision.summary(),
        "pending": pending,
        "guards": [
            {
                "guard": verdict.guard,
                "revision": verdict.revision,
                "score": verdict.score,
                "failed": verdict.failed,
                "reason": verdict.reason,
                "tokens": verdict.tokens,
                "latency_ms": verdict.latency_ms,
            }
            for verdict in decision.verdicts
        ],
    }
    return record if text is None else {**record, "text": text}


def log_record(record: Mapping[str, Any]) -> None:
    """Write a record to the logger `langchain_safeguard.audit` at level INFO: the default sink."""
    logger.info("%s", json.dumps(record))


class JsonLinesSink:
    """Appends each record as one line of JSON to a file.

    Args:
        path: The file; made with its first record, never truncated.
    """

    def __init__(self, path: str | Path) -> None:
        """Store; nothing is opened yet."""
        self._path = Path(path)
        self._lock = threading.Lock()

    def __call__(self, record: Mapping[str, Any]) -> None:
        """Append one record. Opened and closed each time, so that files can be rotated."""
        line = json.dumps(record) + "\n"
        with self._lock, self._path.open("a", encoding="utf-8") as file:
            file.write(line)
