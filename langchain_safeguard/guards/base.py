"""What a guard is.

A user's own guard subclasses `Guard` and writes `check`. A guard model subclasses `ModelGuard` and
writes two pure functions, `render` and `read`.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import TypeVar

from langchain_safeguard.conversation import Conversation
from langchain_safeguard.engines import Completion, Engine, MicroBatcher, Prompt
from langchain_safeguard.errors import GuardTimeoutError
from langchain_safeguard.taxonomy import Category, Side
from langchain_safeguard.threads import in_thread
from langchain_safeguard.verdict import Verdict

T = TypeVar("T")


class Guard(ABC):
    """Judges conversations."""

    name: str
    """What it is called in verdicts and records."""
    revision: str | None = None
    """Which version of its weights judges, where known."""
    categories: frozenset[Category] = frozenset(Category)
    """All it can report. A policy that names another category is an error."""

    @abstractmethod
    def check(self, conversations: Sequence[Conversation], side: Side) -> list[Verdict]:
        """Judge the `side` part of each conversation, in their order.

        It is called from many threads at once. Whatever it raises counts as "could not judge".
        """

    def check_within(
        self, conversations: Sequence[Conversation], side: Side, seconds: float | None
    ) -> list[Verdict]:
        """Judge, but do not let the caller wait longer than that; `None` waits for ever.

        Raises:
            GuardTimeoutError: It takes longer. The work may go on in a thread of its own.
        """
        if seconds is None:
            return self.check(conversations, side)
        call = in_thread(lambda: self.check(conversations, side), f"guard-{self.name}")
        return result_within(call, seconds)

    async def acheck(self, conversations: Sequence[Conversation], side: Side) -> list[Verdict]:
        """Judge without blocking the event loop; by default in a thread."""
        call = in_thread(lambda: self.check(conversations, side), f"guard-{self.name}")
        return await asyncio.wrap_future(call)


class ModelGuard(Guard):
    """A guard around a model that an engine runs; concurrent calls share its batches.

    Args:
        engine: What runs the model.
    """

    def __init__(self, engine: Engine) -> None:
        """Start a queue in front of the engine."""
        self._batcher: MicroBatcher[Prompt, Completion] = MicroBatcher(
            engine.run, name=f"guard-{self.name}"
        )

    @abstractmethod
    def render(self, conversation: Conversation, side: Side) -> Prompt:
        """Put a conversation into the model's own form."""

    @abstractmethod
    def read(self, completion: Completion) -> Verdict:
        """Read the model's answer.

        Raises:
            GuardOutputError: It cannot be read.
        """

    def check(self, conversations: Sequence[Conversation], side: Side) -> list[Verdict]:
        """Judge in common batches with all other callers."""
        return self.check_within(conversations, side, None)

    def check_within(
        self, conversations: Sequence[Conversation], side: Side, seconds: float | None
    ) -> list[Verdict]:
        """Judge in common batches with all other callers, but wait no longer than that."""
        begin = time.perf_counter()
        verdicts = []
        for future in self._submit(conversations, side):
            left = None if seconds is None else begin + seconds - time.perf_counter()
            verdicts.append(self._timed(result_within(future, left), begin))
        return verdicts

    async def acheck(self, conversations: Sequence[Conversation], side: Side) -> list[Verdict]:
        """Judge in common batches with all other callers."""
        begin = time.perf_counter()
        futures = self._submit(conversations, side)
        completions = await asyncio.gather(*map(asyncio.wrap_future, futures))
        return [self._timed(completion, begin) for completion in completions]

    @property
    def stats(self) -> dict[str, int]:
        """Return how many checks were run so far, and in how many forward passes."""
        return {"checks": self._batcher.items, "passes": self._batcher.passes}

    def _submit(
        self, conversations: Sequence[Conversation], side: Side
    ) -> list[Future[Completion]]:
        prompts = [self.render(conversation, side) for conversation in conversations]
        return [self._batcher.submit(prompt) for prompt in prompts]

    def _timed(self, completion: Completion, begin: float) -> Verdict:
        verdict = self.read(completion)
        return replace(verdict, latency_ms=(time.perf_counter() - begin) * 1000)


def result_within(future: Future[T], seconds: float | None) -> T:
    """Wait for a result, but no longer than that.

    Raises:
        GuardTimeoutError: It is not there in time; it is cancelled if it has not begun.
    """
    try:
        return future.result(None if seconds is None else max(seconds, 0))
    except TimeoutError:
        if future.done():
            raise
        future.cancel()
        raise GuardTimeoutError("no verdict in time") from None
