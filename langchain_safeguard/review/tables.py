"""How tickets are stored: one table, the same in SQLite and PostgreSQL.

Whatever people and models wrote is stored as JSON in ASCII: neither NUL characters nor broken
surrogates, which a hostile text may hold, fit into a PostgreSQL text.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from langchain_safeguard.conversation import Conversation, Turn
from langchain_safeguard.errors import MissingExtraError
from langchain_safeguard.review.ticket import Ticket

try:
    from sqlalchemy import Column, Float, Index, MetaData, String, Table, Text
    from sqlalchemy.engine import Dialect, RowMapping
    from sqlalchemy.types import TypeDecorator
except ModuleNotFoundError as error:
    raise MissingExtraError("sqlalchemy", "review") from error


class _Json(TypeDecorator[Any]):
    """A JSON value in ASCII."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Write it."""
        return None if value is None else json.dumps(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """Read it."""
        return None if value is None else json.loads(value)


class _Time(TypeDecorator[datetime]):
    """A time in UTC as ISO 8601, which sorts as it should and means the same in every database."""

    impl = String(32)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:
        """Write it."""
        return None if value is None else value.astimezone(UTC).isoformat(timespec="microseconds")

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Read it."""
        return None if value is None else datetime.fromisoformat(value)


METADATA = MetaData()
TICKETS = Table(
    "safeguard_tickets",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("created", _Time, nullable=False),
    Column("side", String(16), nullable=False),
    Column("turns", _Json, nullable=False),
    Column("decision_id", String(64), nullable=False),
    Column("categories", _Json, nullable=False),
    Column("score", Float),
    Column("rule", _Json),
    Column("allowed", _Json, nullable=False),
    Column("earlier", _Json, nullable=False),
    Column("answer", _Json),
    Column("status", String(16), nullable=False),
    Column("reviewer", _Json),
    Column("decided_at", _Time),
    Column("reply", _Json),
    Column("note", _Json),
    Index("safeguard_tickets_by_status", "status", "created", "id"),
)


def row_of(ticket: Ticket) -> dict[str, Any]:
    """Return a ticket as a row."""
    return {
        "id": ticket.id,
        "created": ticket.created,
        "side": ticket.side,
        "turns": [
            [turn.role, turn.text, list(turn.unchecked), turn.preamble]
            for turn in ticket.conversation.turns
        ],
        "decision_id": ticket.decision_id,
        "categories": list(ticket.categories),
        "score": ticket.score,
        "rule": ticket.rule,
        "allowed": list(ticket.allowed),
        "earlier": list(ticket.earlier),
        "answer": ticket.answer,
        "status": ticket.status,
    }


def ticket_of(row: RowMapping) -> Ticket:
    """Return a row as a ticket."""
    turns = (
        Turn(role, text, tuple(unchecked), preamble=preamble)
        for role, text, unchecked, preamble in row["turns"]
    )
    return Ticket(
        id=row["id"],
        created=row["created"],
        side=row["side"],
        conversation=Conversation(tuple(turns)),
        decision_id=row["decision_id"],
        categories=tuple(row["categories"]),
        score=row["score"],
        rule=row["rule"],
        allowed=tuple(row["allowed"]),
        status=row["status"],
        reviewer=row["reviewer"],
        decided_at=row["decided_at"],
        reply=row["reply"],
        note=row["note"],
        earlier=tuple(row["earlier"]),
        answer=row["answer"],
    )
