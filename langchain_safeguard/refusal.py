"""What users get instead of a blocked or rewritten text.

Of a withheld message only what cannot hold its content survives: its id, name, token counts, and a
few plain facts of its metadata. Tool calls, reasoning, log-probabilities and the provider's own
extras repeat the content in other words, so they go with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, cast

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage

from langchain_safeguard.conversation import says_nothing
from langchain_safeguard.decision import Decision
from langchain_safeguard.errors import ContentBlockedError
from langchain_safeguard.policy import Action

RECORD = "safeguard"
"""The key in `response_metadata` under which a message carries `Decision.summary()`."""

T = TypeVar("T")
M = TypeVar("M", bound=BaseMessage)
A = TypeVar("A", bound=AIMessage)

_FACTS = ("model_name", "model", "model_provider", "system_fingerprint", "created", "service_tier")


def is_held(answer: object) -> bool:
    """Tell what stands in place of an answer about which a person is yet to decide."""
    record = answer.response_metadata.get(RECORD) if isinstance(answer, BaseMessage) else None
    return isinstance(record, dict) and record.get("action") == Action.ESCALATE


def to_hold(answer: T) -> T | None:
    """Return what to hold while a person decides: the answer, unless it is held already."""
    return None if is_held(answer) else answer


def refusal_message(decision: Decision, like: BaseMessage | None = None) -> AIMessage:
    """Make the message that stands in for a withheld one.

    Args:
        decision: Its text becomes the content; its summary, which has no text, the record.
        like: The withheld message, whose id and token counts are kept.
    """
    return _counted(AIMessage(**_fields(decision, like)), like)


def refusal_chunk(decision: Decision, like: BaseMessage | None = None) -> AIMessageChunk:
    """Make the last chunk of a stream that is withheld from here on; see `refusal_message`."""
    chunk = AIMessageChunk(**_fields(decision, like), chunk_position="last")
    return _counted(chunk, like)


def refused(decision: Decision, like: T) -> T:
    """Make a refusal of the type of the withheld value.

    Raises:
        ContentBlockedError: It is neither text nor a message, so that none can be made.
    """
    if isinstance(like, str):
        return cast(T, decision.text)
    if isinstance(like, AIMessageChunk):
        return cast(T, refusal_chunk(decision, like))
    if isinstance(like, BaseMessage):
        return cast(T, refusal_message(decision, like))
    raise ContentBlockedError(decision)


def with_text(message: M, decision: Decision) -> M:
    """Return a message with the decision's text in place of its own, and the record.

    Args:
        message: A message that was rewritten: an answer, or a user's.
        decision: What was decided about it.
    """
    if isinstance(message, AIMessageChunk):
        chunk = AIMessageChunk(**_fields(decision, message), chunk_position=message.chunk_position)
        return cast(M, _counted(chunk, message))
    if isinstance(message, AIMessage):
        return cast(M, refusal_message(decision, message))
    return _with_content(message, decision.text)


def recorded(message: M, decision: Decision) -> M:
    """Return the message with the record of a decision that flagged it; else the message itself."""
    if decision.action is not Action.FLAG:
        return message
    # A copy: the model, or its cache, may still hold the original.
    metadata = {**message.response_metadata, RECORD: decision.summary()}
    return message.model_copy(update={"response_metadata": metadata})


def rewritten_input(messages: Sequence[BaseMessage], decision: Decision) -> list[BaseMessage]:
    """Put the decision's text in place of all that was judged on the input side.

    That is what was said since the last answer, and it was judged as one text; so the last of these
    messages takes the whole of it. Results of tools stay as empty messages, since models insist on
    an answer to each call; the beginning of an answer, if the caller made one, is dropped.
    """
    begin = _begin_of_judged(messages)
    judged = [m for m in messages[begin:] if m.type != "system"] or [*messages[begin:]]
    last = next((m for m in reversed(judged) if not isinstance(m, AIMessage)), judged[-1])
    rewritten: list[BaseMessage] = []
    for message in messages[begin:]:
        if message is last:
            rewritten.append(_with_content(message, decision.text))
        elif not any(message is other for other in judged):
            rewritten.append(message)
        elif isinstance(message, ToolMessage):
            rewritten.append(_with_content(message, ""))
    return [*messages[:begin], *rewritten]


def _begin_of_judged(messages: Sequence[BaseMessage]) -> int:
    at = len(messages)
    while at and isinstance(messages[at - 1], AIMessage):
        at -= 1
    while at and not isinstance(messages[at - 1], AIMessage):
        at -= 1
    return at


def _with_content(message: M, text: str) -> M:
    """Replace the readable content; pictures and other parts nobody judged stay with it."""
    content: Any = text
    if isinstance(message.content, list):
        parts = [b for b in message.content if isinstance(b, dict) and says_nothing(b)]
        content = [{"type": "text", "text": text}, *parts]
    return message.model_copy(update={"content": content})


def _fields(decision: Decision, like: BaseMessage | None) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "content": decision.text,
        "response_metadata": {RECORD: decision.summary()},
    }
    if like is None:
        return fields
    metadata = {key: like.response_metadata[key] for key in _FACTS if key in like.response_metadata}
    return {
        **fields,
        "id": like.id,
        "name": like.name,
        "response_metadata": {**metadata, **fields["response_metadata"]},
    }


def _counted(message: A, like: BaseMessage | None) -> A:
    """Add the token counts, unvalidated: those of a message from a cache can be incomplete."""
    usage = getattr(like, "usage_metadata", None)
    if message.response_metadata[RECORD]["action"] == Action.ESCALATE.value:
        # They come with the answer, once it is decided about.
        return message
    return message.model_copy(update={"usage_metadata": usage}) if usage else message
