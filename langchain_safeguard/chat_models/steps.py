"""What a guarded call of a chat model wants done."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage

from langchain_safeguard.conversation import Conversation

Messages = Sequence[BaseMessage]


@dataclass(frozen=True, slots=True)
class Ask:
    """Check the input; the result is the decision, and in parallel mode the answer with it."""

    conversation: Conversation
    messages: Messages


@dataclass(frozen=True, slots=True)
class Call:
    """Call the model; the result is its answer, or the error it raised."""

    messages: Messages


@dataclass(frozen=True, slots=True)
class Wait:
    """Look for an answer that waited while a run was interrupted; the result is `Found`."""

    prompt: Conversation


@dataclass(frozen=True, slots=True)
class Judge:
    """Check the answer; the result is the decision."""

    conversation: Conversation
    keep: AIMessage | Exception | None


@dataclass(frozen=True, slots=True)
class Recall:
    """Look for the answer that was held for review; the result is that, or `None`."""

    conversation: Conversation


Step = Ask | Call | Judge | Recall | Wait
Plan = Generator[Step, Any, AIMessage]
