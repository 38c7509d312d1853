"""Tickets: a text that waits for a person, and what the person made of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, cast, get_args

from langchain_core.messages import (
    AIMessageChunk,
    BaseMessage,
    message_chunk_to_message,
    message_to_dict,
    messages_from_dict,
)
from langchain_core.runnables import RunnableConfig

from langchain_safeguard.conversation import Conversation
from langchain_safeguard.errors import ConfigurationError, ReviewSetupError
from langchain_safeguard.taxonomy import Side

Verb = Literal["approve", "edit", "reject", "respond"]
"""What a reviewer can do, in LangChain's words."""
VERBS: tuple[Verb, ...] = get_args(Verb)

Status = Literal["open", "approved", "edited", "rejected", "responded"]
STATUSES: tuple[Status, ...] = get_args(Status)
STATUS_OF: dict[Verb, Status] = {
    "approve": "approved",
    "edit": "edited",
    "reject": "rejected",
    "respond": "responded",
}

TICKETS = "safeguard_ticket"
"""The key in a config's `configurable` under which tickets are handed in."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """A text that is held until a person has decided about it.

    Attributes:
        id: Its name, which nobody can guess: whoever has it may fetch what was decided.
        created: When the text was held.
        side: The side on which it was judged.
        conversation: The conversation whose last part is in question.
        decision_id: The decision that is left to the person.
        categories: The hazards that fired.
        score: The guards' highest score in [0, 1], or `None`.
        rule: The name of the rule that escalated.
        allowed: What a reviewer may do.
        status: `open`, or what was decided: `approved`, `edited`, `rejected`, `responded`.
        reviewer: Who decided, as they called themselves.
        decided_at: When.
        reply: The reviewer's words: the edited text, the response, or why it is rejected.
        note: What the reviewer noted for other reviewers; no user sees it.
        earlier: Tickets that were handed in with the run in which this text was held.
        answer: The held answer itself, packed (see `packed`).
    """

    id: str
    created: datetime
    side: Side
    conversation: Conversation = field(repr=False)
    decision_id: str
    categories: tuple[str, ...] = ()
    score: float | None = None
    rule: str | None = None
    allowed: tuple[Verb, ...] = VERBS
    status: Status = "open"
    reviewer: str | None = None
    decided_at: datetime | None = None
    reply: str | None = field(default=None, repr=False)
    note: str | None = field(default=None, repr=False)
    earlier: tuple[str, ...] = ()
    answer: dict[str, Any] | None = field(default=None, repr=False)

    @property
    def text(self) -> str:
        """Return the text in question."""
        return self.conversation.checked(self.side).text

    @property
    def released(self) -> str | None:
        """Return the text that may be used: `None` while it is open, or if it was rejected."""
        if self.status == "approved":
            return self.text
        return self.reply if self.status in ("edited", "responded") else None

    @property
    def is_open(self) -> bool:
        """Tell whether nobody has decided yet."""
        return self.status == "open"

    def to_dict(self) -> dict[str, Any]:
        """Return what a reviewer sees, as JSON has it: times in ISO 8601, UTC."""
        return {
            "id": self.id,
            "status": self.status,
            "created": self.created.isoformat(),
            "side": self.side,
            "text": self.text,
            "conversation": [
                {"role": turn.role, "text": turn.text, "unchecked": list(turn.unchecked)}
                for turn in self.conversation.turns
            ],
            "categories": list(self.categories),
            "score": self.score,
            "rule": self.rule,
            "decision_id": self.decision_id,
            "allowed": list(self.allowed),
            "reviewer": self.reviewer,
            "decided_at": self.decided_at.isoformat() if self.decided_at else None,
            "reply": self.reply,
            "note": self.note,
        }


@dataclass(frozen=True, slots=True)
class Recalled:
    """The answer to a prompt that was held: it stands in for calling the model again.

    Attributes:
        answer: What the model had answered.
    """

    answer: Any


def with_ticket(*tickets: str, config: RunnableConfig | None = None) -> RunnableConfig:
    """Return a config that hands tickets in, to fetch what was decided about a held text.

    A ticket for another text changes nothing: this one is held under a ticket of its own.

    Args:
        tickets: The ids. A ticket for an answer remembers those of its run, so it is enough.
        config: A config to add them to.

    Raises:
        ConfigurationError: There is no ticket, or one is not a text.

    Example:
        ```python
        answer = chain.invoke(question)
        ticket = answer.response_metadata["safeguard"]["ticket"]
        ...  # a person decides
        chain.invoke(question, config=with_ticket(ticket))
        ```
    """
    if not tickets:
        raise ConfigurationError("with_ticket() needs the id of a ticket")
    for ticket in tickets:
        if not isinstance(ticket, str) or not ticket:
            raise ConfigurationError(f"ticket={ticket!r}; allowed: the id of a ticket, a str")
    around: dict[str, Any] = {**(config or {})}
    configurable = {**(around.get("configurable") or {}), TICKETS: list(tickets)}
    return cast(RunnableConfig, {**around, "configurable": configurable})


def tickets_of(config: RunnableConfig) -> tuple[str, ...]:
    """Return the tickets that a config hands in.

    Raises:
        ReviewSetupError: What stands there is no ticket.
    """
    value = (config.get("configurable") or {}).get(TICKETS)
    listed = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(listed, list | tuple) or not all(isinstance(each, str) for each in listed):
        raise ReviewSetupError(
            f"configurable[{TICKETS!r}] holds a {type(value).__name__}; allowed: the id of a "
            "ticket, or a list of them"
        )
    return tuple(dict.fromkeys(listed))


def packed(answer: object) -> dict[str, Any] | None:
    """Return an answer as JSON can hold it; `None` if it would not come back the same.

    Args:
        answer: What was judged: text, a message, a list of messages, or a JSON value.
    """
    several = isinstance(answer, list) and bool(answer)
    listed: list[Any] = cast(list[Any], answer) if several else [answer]
    if all(isinstance(each, BaseMessage) for each in listed):
        whole = [_whole(each) for each in listed]
        pack = {"messages": [message_to_dict(each) for each in whole], "several": several}
        expected: Any = whole if several else whole[0]
    else:
        pack, expected = {"value": answer}, answer
    try:
        back = json.loads(json.dumps(pack))
        same = unpacked(back) == expected
    except (TypeError, ValueError, RecursionError):
        return None
    return cast(dict[str, Any], back) if same else None


def unpacked(pack: dict[str, Any]) -> Any:
    """Return the answer that was packed."""
    if "value" in pack:
        return pack["value"]
    messages = messages_from_dict(pack["messages"])
    return messages if pack["several"] else messages[0]


def _whole(message: BaseMessage) -> BaseMessage:
    return message_chunk_to_message(message) if isinstance(message, AIMessageChunk) else message
