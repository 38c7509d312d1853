"""Answers of chat models in the forms they are handed on in: whole, or as chunks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import Any, cast

from langchain_core.messages import AIMessage, AIMessageChunk, message_chunk_to_message

_RUN_IDS = ("lc_run-", "run-")
"""How ids begin that langchain-core makes from a run's id."""


def own(message: Any) -> AIMessage:
    """Copy a message of the inner model, without the id of the inner run.

    Callers write into what they get, and the original may lie in the inner model's cache. An id
    that a provider gave stays; without one, a message gets the id of the guarded run.
    """
    if not isinstance(message, AIMessage):
        raise TypeError(f"the model answered with a {type(message).__name__}, not an AIMessage")
    id = None if (message.id or "").startswith(_RUN_IDS) else message.id
    return message.model_copy(update={"id": id, "response_metadata": {**message.response_metadata}})


def whole(message: Any) -> AIMessage:
    """Return the answer as a message, whatever form the inner model gave it."""
    copied = own(message)
    if isinstance(copied, AIMessageChunk):
        return cast(AIMessage, message_chunk_to_message(copied))
    return copied


def once(answer: Any) -> Generator[Any]:
    """Stream an answer that is there already."""
    yield as_chunk(answer)


async def aonce(answer: Any) -> AsyncGenerator[Any]:
    """Stream an answer that is there already."""
    yield as_chunk(answer)


def as_chunk(message: Any) -> Any:
    """Return the one chunk of an answer that does not stream; what is no AI message stays."""
    if isinstance(message, AIMessageChunk) or not isinstance(message, AIMessage):
        return message
    chunk = AIMessageChunk(
        content=message.content,
        additional_kwargs=message.additional_kwargs,
        response_metadata=message.response_metadata,
        tool_calls=message.tool_calls,
        invalid_tool_calls=message.invalid_tool_calls,
        id=message.id,
        name=message.name,
        chunk_position="last",
    )
    # Unvalidated: the counts of a message from a cache can be incomplete.
    return chunk.model_copy(update={"usage_metadata": message.usage_metadata})
