"""The queue of texts that wait for a person, in a database that several processes may share."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from langchain_safeguard.conversation import Conversation
from langchain_safeguard.database import Database
from langchain_safeguard.decision import Decision
from langchain_safeguard.errors import (
    ConfigurationError,
    MissingExtraError,
    ReviewTimeoutError,
    TicketDecidedError,
    UnknownTicketError,
)
from langchain_safeguard.review.tables import METADATA, TICKETS, row_of, ticket_of
from langchain_safeguard.review.ticket import (
    STATUS_OF,
    STATUSES,
    VERBS,
    Status,
    Ticket,
    Verb,
    packed,
)

try:
    from sqlalchemy import Connection, delete, insert, select, update
except ModuleNotFoundError as error:
    raise MissingExtraError("sqlalchemy", "review") from error


class ReviewQueue:
    """Holds texts until a person has decided about them, whatever becomes of the process.

    Args:
        url: The path of an SQLite file, or the URL of a database, such as
            `"postgresql://user@host/name"` (extra `[postgresql]`). If left out:
            `~/.langchain-safeguard/reviews.db`.
        timeout: The seconds to wait for the database: to connect, or for others to finish writing.

    Attributes:
        url: The URL, without a password.

    Raises:
        ConfigurationError: A value is wrong.
        MissingExtraError: A package is missing for this database.
        ReviewError: The database cannot be reached.

    Example:
        ```python
        queue = ReviewQueue("reviews.db")
        for ticket in queue.list():
            queue.decide(ticket.id, "reject", reviewer="kim")
        ```
    """

    def __init__(self, url: str | Path | None = None, *, timeout: float = 10.0) -> None:
        """Open the database, and make its table if it has none."""
        if url is None:
            url = Path.home() / ".langchain-safeguard" / "reviews.db"
            url.parent.mkdir(mode=0o700, exist_ok=True)
        self._database = Database(url, METADATA, name="review queue", timeout=timeout)
        self.url = self._database.shown

    def add(
        self,
        conversation: Conversation,
        decision: Decision,
        *,
        allowed: Sequence[Verb] = VERBS,
        earlier: Sequence[str] = (),
    ) -> Ticket:
        """Hold a text.

        Args:
            conversation: The conversation whose last part is in question.
            decision: What was decided so far: to escalate it.
            allowed: What a reviewer may do.
            earlier: Tickets that are handed in with this one's.

        Raises:
            ReviewError: It cannot be stored.
        """
        ticket = Ticket(
            id=secrets.token_hex(16),
            created=datetime.now(UTC),
            side=decision.side,
            conversation=conversation,
            decision_id=decision.decision_id,
            categories=decision.categories,
            score=decision.score,
            rule=decision.rule,
            allowed=tuple(allowed),
            earlier=tuple(earlier),
            answer=_answer(conversation),
        )
        with self._database.connected() as connection:
            connection.execute(insert(TICKETS).values(row_of(ticket)))
        return ticket

    def get(self, id: str) -> Ticket:
        """Return a ticket.

        Raises:
            UnknownTicketError: There is none of that id.
            ReviewError: It cannot be read.
        """
        with self._database.connected() as connection:
            return _got(connection, id)

    def list(
        self, status: Status | None = "open", *, limit: int = 100, after: str | None = None
    ) -> list[Ticket]:
        """Return tickets, the oldest first.

        Args:
            status: Only those of this status; `None` for all.
            limit: The most to return.
            after: The id of the last one that was returned, to go on behind it.

        Raises:
            ConfigurationError: A value is wrong.
            UnknownTicketError: There is no ticket `after`.
            ReviewError: They cannot be read.
        """
        if status is not None and status not in STATUSES:
            raise ConfigurationError.unknown("status", status, STATUSES)
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise ConfigurationError(f"limit={limit!r}; allowed: 1, 2, ...")
        query = select(TICKETS).order_by(TICKETS.c.created, TICKETS.c.id).limit(limit)
        if status is not None:
            query = query.where(TICKETS.c.status == status)
        with self._database.connected() as connection:
            if after is not None:
                last = _got(connection, after)
                same = (TICKETS.c.created == last.created) & (TICKETS.c.id > last.id)
                query = query.where((TICKETS.c.created > last.created) | same)
            return [*map(ticket_of, connection.execute(query).mappings())]

    def decide(
        self,
        id: str,
        verb: Verb,
        text: str | None = None,
        *,
        reviewer: str | None = None,
        note: str | None = None,
    ) -> Ticket:
        """Decide about a text, once and for all.

        Args:
            id: The ticket.
            verb: `approve` lets the text pass. `edit` puts `text` in its place; nobody judges that
                again. `reject` blocks it. `respond` blocks it, and `text` is the answer.
            text: What to edit it to, or to respond; for `reject`: what the user is told. Arguments
                of a tool are edited as a JSON object.
            reviewer: Who decides.
            note: A note for other reviewers.

        Raises:
            ConfigurationError: A value is wrong, or the ticket does not allow this.
            TicketDecidedError: Somebody was faster.
            UnknownTicketError: There is no such ticket.
            ReviewError: It cannot be stored; nothing is decided.
        """
        _check_decision(verb, text, reviewer, note)
        with self._database.connected() as connection:
            ticket = _got(connection, id)
            if verb not in ticket.allowed:
                raise ConfigurationError.unknown("decision", verb, ticket.allowed)
            # One statement: of two reviewers, one finds it open.
            decided = connection.execute(
                update(TICKETS)
                .where(TICKETS.c.id == id, TICKETS.c.status == "open")
                .values(
                    status=STATUS_OF[verb],
                    reviewer=reviewer,
                    decided_at=datetime.now(UTC),
                    reply=text,
                    note=note,
                )
            )
            ticket = _got(connection, id)
            if not decided.rowcount:
                raise TicketDecidedError(ticket)
            return ticket

    def wait_for_review(
        self, id: str, timeout: float | None = None, *, every: float = 1.0
    ) -> Ticket:
        """Wait until somebody has decided about a ticket.

        Args:
            id: The ticket.
            timeout: The seconds to wait; `None` waits for ever.
            every: The seconds between two looks.

        Raises:
            ReviewTimeoutError: Nobody has decided in time; the ticket stays open.
            UnknownTicketError: There is no such ticket.
            ReviewError: It cannot be read.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while (ticket := self.get(id)).is_open:
            time.sleep(_pause(id, deadline, every))
        return ticket

    async def await_review(
        self,
        id: str,
        timeout: float | None = None,  # noqa: ASYNC109 - the same as in sync code
        *,
        every: float = 1.0,
    ) -> Ticket:
        """Wait until somebody has decided, without blocking the event loop; see above."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (ticket := await asyncio.to_thread(self.get, id)).is_open:  # noqa: ASYNC110
            await asyncio.sleep(_pause(id, deadline, every))
        return ticket

    def decided(self) -> Iterator[Ticket]:
        """Return all tickets that are decided, the oldest first.

        Raises:
            ReviewError: They cannot be read.
        """
        last: str | None = None
        while tickets := self.list(None, after=last):
            yield from (ticket for ticket in tickets if not ticket.is_open)
            last = tickets[-1].id

    def purge(self, older_than: timedelta) -> int:
        """Delete what was decided longer ago than this; return how many.

        Raises:
            ConfigurationError: It is no time.
            ReviewError: They cannot be deleted.
        """
        if not isinstance(older_than, timedelta) or older_than < timedelta():
            raise ConfigurationError(
                f"older_than={older_than!r}; allowed: a timedelta of 0 or more"
            )
        try:
            limit = datetime.now(UTC) - older_than
        except OverflowError:
            # Before the year 1.
            return 0
        with self._database.connected() as connection:
            old = (TICKETS.c.status != "open") & (TICKETS.c.decided_at < limit)
            return int(connection.execute(delete(TICKETS).where(old)).rowcount)


def _answer(conversation: Conversation) -> dict[str, Any] | None:
    source = conversation.turns[-1].source
    return None if source is None else packed(source)


def _got(connection: Connection, id: str) -> Ticket:
    row = connection.execute(select(TICKETS).where(TICKETS.c.id == id)).mappings().first()
    if row is None:
        raise UnknownTicketError(f"the review queue has no ticket {id[:64]!r}")
    return ticket_of(row)


def _pause(id: str, deadline: float | None, every: float) -> float:
    if deadline is None:
        return every
    left = deadline - time.monotonic()
    if left <= 0:
        raise ReviewTimeoutError(f"nobody has decided about ticket {id} in time; it stays open")
    return min(every, left)


def _check_decision(verb: object, text: object, reviewer: object, note: object) -> None:
    if verb not in VERBS:
        raise ConfigurationError.unknown("decision", verb, VERBS)
    for name, value in (("text", text), ("reviewer", reviewer), ("note", note)):
        if value is not None and not isinstance(value, str):
            raise ConfigurationError(f"{name} is a {type(value).__name__}; allowed: a str, or None")
    if verb in ("edit", "respond") and not text:
        raise ConfigurationError(f"{verb!r} needs a text")
    if verb == "approve" and text is not None:
        raise ConfigurationError("'approve' takes no text; to change it, use 'edit'")
