"""Decided tickets as labelled rows, which `evaluate`, calibration and training read."""

from __future__ import annotations

from typing import Any

from langchain_safeguard.review.ticket import Ticket


def row_of_ticket(ticket: Ticket) -> dict[str, Any]:
    """Return a decided ticket as a row; see `langchain_safeguard.evaluation.dataset`.

    What a person approved is safe. What they edited, rejected or answered themselves is unsafe, and
    has the hazards that the guard had found.
    """
    unsafe = ticket.status != "approved"
    asked = ticket.conversation.turns[:-1]
    before = [turn.text for turn in asked if turn.role == "user"]
    return {
        # Without what a tool says of itself, as classifiers judge it.
        "text": ticket.conversation.checked(ticket.side).body,
        "unsafe": int(unsafe),
        "side": ticket.side,
        "prompt": before[-1] if before and ticket.side != "input" else None,
        "categories": list(ticket.categories) if unsafe else [],
        "id": ticket.id,
        "source": "review",
        "status": ticket.status,
        "reviewer": ticket.reviewer,
    }
