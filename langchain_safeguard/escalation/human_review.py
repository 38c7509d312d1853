"""A person decides: at once in a graph that waits for them, or later, from a queue."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config

from langchain_safeguard.conversation import Conversation, Turn
from langchain_safeguard.errors import ConfigurationError, ReviewSetupError, UnknownTicketError
from langchain_safeguard.escalation.base import Escalation, Resolution
from langchain_safeguard.policy import Action
from langchain_safeguard.review.ticket import (
    VERBS,
    Recalled,
    Ticket,
    Verb,
    tickets_of,
    unpacked,
)
from langchain_safeguard.taxonomy import Side

if TYPE_CHECKING:
    from langchain_safeguard.review.queue import ReviewQueue

HELD = "This is held for review. Ticket: {ticket}"

_SCRATCHPAD, _CHECKPOINTER = "__pregel_scratchpad", "__pregel_checkpointer"
"""What LangGraph puts into the config of a node: its notes on interrupts, and who keeps them."""

logger = logging.getLogger(__name__)


class HumanReview:
    """Asks a person.

    In a LangGraph graph with a checkpointer the run is interrupted. The interrupt's value has the
    form of LangChain's human-in-the-loop requests: `action_requests` with the text in question,
    `review_configs` with what is allowed, and beside them the decision's facts under `safeguard`.
    Resume with `Command(resume={"decisions": [{"type": "approve"}]})`, or `edit` with
    `"edited_action": {"name": ..., "args": {"text": ...}}`, or `reject` or `respond` with a
    `"message"`. A reply that is nothing of this is answered by the same interrupt once more, with
    an `error` that says what is wrong.

    Anywhere else the text becomes a ticket of the queue. It is blocked so long, and the refusal
    names the ticket, as `Decision.ticket` does. When somebody has decided, the same call with
    `config=with_ticket(ticket)` gives what was decided: neither is the model asked again, nor
    does a tool run again.

    What a person approves, edits or answers is not judged again. The arguments of a tool are edited
    as a JSON object; anything else blocks the call.

    Args:
        queue: Where texts are held outside of such a graph.
        allowed: What the person may do, of `approve`, `edit`, `reject` and `respond`.
        message: What is said of a text that is held; `{ticket}` stands for the ticket.

    Raises:
        ConfigurationError: A value is wrong; the message names it and what is allowed.

    Example:
        ```python
        review = HumanReview(ReviewQueue())
        policy = {"rules": [{"categories": "fraud", "action": "escalate"}]}
        safeguard = Safeguard(policy=policy, handlers=[review])
        ```
    """

    name = "human_review"

    def __init__(
        self,
        queue: ReviewQueue | None = None,
        *,
        allowed: Sequence[Verb] = VERBS,
        message: str = HELD,
    ) -> None:
        """Check the values."""
        if queue is not None:
            # Imported late: in a graph no database is needed.
            from langchain_safeguard.review.queue import ReviewQueue

            if not isinstance(queue, ReviewQueue):
                raise ConfigurationError(f"queue={queue!r}; allowed: a ReviewQueue, or None")
        if isinstance(allowed, str) or not allowed:
            raise ConfigurationError(f"allowed={allowed!r}; allowed: some of {', '.join(VERBS)}")
        for verb in allowed:
            if verb not in VERBS:
                raise ConfigurationError.unknown("decision", verb, VERBS)
        if not isinstance(message, str) or not message:
            raise ConfigurationError(f"message={message!r}; allowed: a text")
        self.queue = queue
        self.allowed = tuple(allowed)
        self.message = message

    def __call__(self, escalation: Escalation) -> Resolution:
        """Ask, or hold the text, or tell what was decided about it.

        Raises:
            ReviewSetupError: Nobody can be asked as things are set up.
            ReviewError: The queue cannot be used.
        """
        config = ensure_config()
        for ticket in self._tickets(config):
            if _is_about(ticket, escalation):
                return self._resolution(ticket)
        place = config.get("configurable") or {}
        if _SCRATCHPAD in place and place.get(_CHECKPOINTER):
            return self._interrupted(escalation)
        if self.queue is None:
            raise ReviewSetupError(
                "HumanReview cannot interrupt a graph without a checkpointer: compile it with one, "
                "such as compile(checkpointer=...), or give HumanReview(queue=ReviewQueue())"
                if _SCRATCHPAD in place
                else "outside of a LangGraph graph HumanReview needs a queue: give "
                "HumanReview(queue=ReviewQueue())"
            )
        return self._resolution(
            self.queue.add(
                escalation.conversation,
                escalation.decision,
                allowed=self.allowed,
                earlier=tickets_of(config),
            )
        )

    async def acall(self, escalation: Escalation) -> Resolution:
        """Ask, or hold the text, or tell what was decided, without blocking the event loop."""
        # The thread has the context of this task, where LangGraph's notes and the config are.
        return await asyncio.to_thread(self, escalation)

    def recall(self, prompt: Conversation, side: Side, config: RunnableConfig) -> Recalled | None:
        """Return the answer to this very prompt that was held under a ticket that is handed in.

        Raises:
            UnknownTicketError: The queue has none of these tickets.
            ReviewSetupError: The answer cannot be made again.
            ReviewError: The queue cannot be used.
        """
        tickets, handed = self._tickets(config), tickets_of(config)
        if handed and not tickets:
            raise UnknownTicketError(
                "a ticket was handed in, but HumanReview has no queue"
                if self.queue is None
                else f"the review queue has no ticket {', '.join(repr(t[:64]) for t in handed)}"
            )
        for ticket in tickets:
            if ticket.side == side and _asked(ticket) == prompt.turns:
                if ticket.answer is None:
                    raise ReviewSetupError(
                        f"the answer held under ticket {ticket.id} cannot be made again as it was; "
                        "read what was decided with ReviewQueue.get"
                    )
                return Recalled(unpacked(ticket.answer))
        return None

    def _tickets(self, config: RunnableConfig) -> list[Ticket]:
        """Look up the tickets that are handed in, and those that they remember.

        Some may be of another queue, or deleted meanwhile: what they were for is asked anew.
        """
        left, found = [*tickets_of(config)], dict[str, Ticket]()
        while left and self.queue is not None:
            with suppress(UnknownTicketError):
                ticket = self.queue.get(left.pop(0))
                found[ticket.id] = ticket
                left += [each for each in ticket.earlier if each not in found]
        return [*found.values()]

    def _resolution(self, ticket: Ticket) -> Resolution:
        match ticket.status:
            case "approved":
                return Resolution(Action.ALLOW)
            case "edited":
                return Resolution(Action.REWRITE, ticket.reply)
            case "rejected" | "responded":
                return Resolution(Action.BLOCK, ticket.reply)
            case _:
                said = self.message.replace("{ticket}", ticket.id)
                return Resolution(Action.BLOCK, said, ticket.id)

    def _interrupted(self, escalation: Escalation) -> Resolution:
        """Interrupt the run until there is a reply that makes sense."""
        from langgraph.types import interrupt

        request = self._request(escalation)
        reply = interrupt(request)
        while isinstance(read := _read(reply, self.allowed, escalation), str):
            logger.warning("the reply to a human review makes no sense: %s", read)
            reply = interrupt({**request, "error": read})
        return read

    def _request(self, escalation: Escalation) -> dict[str, Any]:
        decision, name = escalation.decision, escalation.side
        found = ", ".join(decision.categories) or decision.rule or "no category"
        return {
            "action_requests": [
                {
                    "name": name,
                    "args": {"text": escalation.text},
                    "description": f"The guard is not sure about this {name}: {found}.",
                }
            ],
            "review_configs": [{"action_name": name, "allowed_decisions": [*self.allowed]}],
            "safeguard": decision.summary(),
        }


def _is_about(ticket: Ticket, escalation: Escalation) -> bool:
    """Tell whether a ticket is for this very text; the id of a decision is a short digest."""
    same = ticket.decision_id == escalation.decision.decision_id
    return same and ticket.conversation == escalation.conversation


def _asked(ticket: Ticket) -> tuple[Turn, ...]:
    """Return the turns that led to a held answer, which may be several messages."""
    said = len((ticket.answer or {}).get("messages", ())) or 1
    return ticket.conversation.turns[:-said]


def _read(reply: Any, allowed: Sequence[Verb], escalation: Escalation) -> Resolution | str:
    """Read a reply; a text says what is wrong with it."""
    if isinstance(reply, Mapping) and "decisions" in reply:
        decisions = reply["decisions"]
        if not isinstance(decisions, list) or len(decisions) != 1:
            return "'decisions' is a list of one decision"
        reply = decisions[0]
    if not isinstance(reply, Mapping):
        return (
            f"the reply is a {type(reply).__name__}; allowed: {{'decisions': [{{'type': "
            f"{' | '.join(map(repr, allowed))}, ...}}]}}"
        )
    bound = reply.get("decision_id", escalation.decision.decision_id)
    if bound != escalation.decision.decision_id:
        return f"it is about another decision than {escalation.decision.decision_id}"
    verb, message = reply.get("type"), reply.get("message")
    if verb not in allowed:
        return f"its 'type' is not one of {', '.join(map(repr, allowed))}"
    if message is not None and not isinstance(message, str):
        return "its 'message' is no text"
    match verb:
        case "approve":
            return Resolution(Action.ALLOW)
        case "edit":
            text = _edited(reply)
            if text is None:
                return "'edit' needs {'edited_action': {'name': ..., 'args': {'text': ...}}}"
            return Resolution(Action.REWRITE, text)
        case "respond" if not message:
            return "'respond' needs a 'message'"
    return Resolution(Action.BLOCK, message)


def _edited(reply: Mapping[str, Any]) -> str | None:
    action = reply.get("edited_action")
    arguments = action.get("args") if isinstance(action, Mapping) else None
    text = arguments.get("text") if isinstance(arguments, Mapping) else None
    return text if isinstance(text, str) else None
