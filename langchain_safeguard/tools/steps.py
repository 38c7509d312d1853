"""What the checks of a tool's call want done, and doing it.

The order stands in plans, which yield these steps: see `langchain_safeguard.plans`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig

from langchain_safeguard.conversation import Conversation
from langchain_safeguard.holding.held import Outcome
from langchain_safeguard.plans import adrive, drive
from langchain_safeguard.safeguard import Safeguard
from langchain_safeguard.taxonomy import Side

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ask:
    """Something to decide."""

    safeguard: Safeguard
    conversation: Conversation
    side: Side
    keep: Outcome | None = None


@dataclass(frozen=True, slots=True)
class Recall:
    """Something that may have been done already; the result is `Found`, or `None`."""

    safeguard: Safeguard
    conversation: Conversation


@dataclass(frozen=True, slots=True)
class Fetch:
    """Something that may be held under a ticket; the result is `Recalled`, or `None`."""

    safeguard: Safeguard
    prompt: Conversation


@dataclass(frozen=True, slots=True)
class Note:
    """Something that was done, and is not to be done again."""

    safeguard: Safeguard
    conversation: Conversation
    outcome: Outcome


Step = Ask | Recall | Fetch | Note
Plan = Generator[Step, Any, T]


def carry_out(plan: Plan[T], config: RunnableConfig | None) -> T:
    """Run a plan."""

    def perform(step: Step) -> Any:
        if not isinstance(step, Ask):
            return _remembered(step, config)
        return step.safeguard.check(
            step.conversation, side=step.side, config=config, keep=step.keep
        )

    return drive(plan, perform)


async def acarry_out(plan: Plan[T], config: RunnableConfig | None) -> T:
    """Run a plan without blocking the event loop."""

    async def perform(step: Step) -> Any:
        if not isinstance(step, Ask):
            return await asyncio.to_thread(_remembered, step, config)
        return await step.safeguard.acheck(
            step.conversation, side=step.side, config=config, keep=step.keep
        )

    return await adrive(plan, perform)


def _remembered(step: Recall | Fetch | Note, config: RunnableConfig | None) -> Any:
    options: Any = {"side": "tool_output", "config": config}
    waiting = step.safeguard.waiting
    match step:
        case Recall(_, conversation):
            return waiting.recall(conversation, surely=True, **options)
        case Fetch(safeguard, prompt):
            return safeguard.recall(prompt, **options)
        case Note(_, conversation, outcome):
            return waiting.note(conversation, keep=outcome, **options)
