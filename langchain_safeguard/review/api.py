"""The review queue over HTTP: a router that an application mounts.

Who may reach it sees what users wrote, and decides: put it behind your own authentication.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

from langchain_safeguard.errors import (
    ConfigurationError,
    MissingExtraError,
    ReviewError,
    TicketDecidedError,
    UnknownTicketError,
)
from langchain_safeguard.review.queue import ReviewQueue
from langchain_safeguard.review.ticket import Status, Verb

try:
    from fastapi import APIRouter, HTTPException, Query, Response
    from pydantic import BaseModel, ConfigDict
except ModuleNotFoundError as error:
    raise MissingExtraError("fastapi", "server") from error


class ReviewDecision(BaseModel):
    """What a reviewer decides; see `ReviewQueue.decide`."""

    model_config = ConfigDict(extra="forbid")

    decision: Verb
    text: str | None = None
    reviewer: str | None = None
    note: str | None = None


def review_router(queue: ReviewQueue) -> APIRouter:
    """Make the routes of a queue.

    | route | what it does |
    |---|---|
    | `GET /tickets?status=open&limit=100&after=ID` | lists tickets, the oldest first |
    | `GET /tickets/ID` | shows one |
    | `POST /tickets/ID/decision` | decides: `{"decision": "reject", "text": ..., ...}` |

    A ticket that is not there gives 404, one that is decided already 409, a wrong value 422, and a
    database that is away 503.

    Example:
        ```python
        app.include_router(review_router(ReviewQueue()), prefix="/review")
        ```
    """
    router = APIRouter(tags=["review"])

    # Not `async`: FastAPI calls them in threads, and the database blocks.
    @router.get("/tickets")
    def list_tickets(
        status: Status | None = "open",
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        after: str | None = None,
    ) -> Response:
        with _Errors():
            return _json([t.to_dict() for t in queue.list(status, limit=limit, after=after)])

    @router.get("/tickets/{id}")
    def show_ticket(id: str) -> Response:
        with _Errors():
            return _json(queue.get(id).to_dict())

    @router.post("/tickets/{id}/decision")
    def decide(id: str, asked: ReviewDecision) -> Response:
        with _Errors():
            ticket = queue.decide(
                id, asked.decision, asked.text, reviewer=asked.reviewer, note=asked.note
            )
            return _json(ticket.to_dict())

    return router


def _json(value: Any) -> Response:
    """Answer in ASCII: a hostile text may hold what UTF-8 cannot."""
    return Response(json.dumps(value), media_type="application/json")


class _Errors:
    """Turns errors of the queue into answers."""

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        """Answer."""
        match error:
            case UnknownTicketError():
                raise HTTPException(404, str(error)) from None
            case TicketDecidedError():
                raise HTTPException(409, str(error)) from None
            case ConfigurationError():
                raise HTTPException(422, str(error)) from None
            case ReviewError():
                raise HTTPException(503, "the review queue cannot be reached") from None
