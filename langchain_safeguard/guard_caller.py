"""Asking guards so that every way of not answering ends in a failed verdict."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tenacity import (
    AsyncRetrying,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from langchain_safeguard.conversation import Conversation
from langchain_safeguard.errors import GuardOutputError, GuardTimeoutError
from langchain_safeguard.guards.base import Guard
from langchain_safeguard.taxonomy import Side
from langchain_safeguard.verdict import Verdict

logger = logging.getLogger(__name__)

_AT_ONCE = 32
"""How many conversations of a failed batch are asked at the same time."""


class GuardCaller:
    """Asks one guard, with a deadline and retries, and never raises.

    Args:
        guard: The guard.
        timeout: The seconds all attempts may take together; `None` waits for ever.
        attempts: How often to ask when the failure is transient (`GuardError.is_retryable`).
        limit: The longest text, in characters, that is judged.
    """

    def __init__(self, guard: Guard, *, timeout: float | None, attempts: int, limit: int) -> None:
        """Store."""
        self.guard = guard
        self._timeout = timeout
        self._limit = limit
        self._retry: dict[str, Any] = {
            "stop": stop_after_attempt(attempts),
            "wait": wait_random_exponential(multiplier=0.05, max=2),
            "retry": retry_if_exception(lambda error: bool(getattr(error, "is_retryable", False))),
            "reraise": True,
        }

    def ask(self, conversations: Sequence[Conversation], side: Side) -> list[Verdict]:
        """Judge; what is too long is not judged, and says so."""
        short = [c for c in conversations if not self._too_long(c, side)]
        verdicts = iter(self._ask(short, side) if short else [])
        return [
            self._refused() if self._too_long(c, side) else next(verdicts) for c in conversations
        ]

    async def aask(self, conversations: Sequence[Conversation], side: Side) -> list[Verdict]:
        """Judge; what is too long is not judged, and says so."""
        short = [c for c in conversations if not self._too_long(c, side)]
        verdicts = iter(await self._aask(short, side) if short else [])
        return [
            self._refused() if self._too_long(c, side) else next(verdicts) for c in conversations
        ]

    def _ask(self, conversations: Sequence[Conversation], side: Side) -> list[Verdict]:
        """Judge; a batch that fails as a whole is asked one by one."""
        try:
            return Retrying(**self._retry)(self._once, conversations, side, self._deadline())
        except Exception as error:
            if len(conversations) == 1:
                return [self._failed(error)]
        # At the same time, so that a guard that hangs costs one more deadline and not many.
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return [*pool.map(lambda c: self._ask([c], side)[0], conversations)]

    async def _aask(self, conversations: Sequence[Conversation], side: Side) -> list[Verdict]:
        """Judge; a batch that fails as a whole is asked one by one."""
        try:
            retry = AsyncRetrying(**self._retry)
            return await retry(self._aonce, conversations, side, self._deadline())
        except Exception as error:
            if len(conversations) == 1:
                return [self._failed(error)]
        alone = await asyncio.gather(*(self._aask([c], side) for c in conversations))
        return [verdict for [verdict] in alone]

    def _once(
        self, conversations: Sequence[Conversation], side: Side, deadline: float | None
    ) -> list[Verdict]:
        verdicts = self.guard.check_within(conversations, side, self._left(deadline))
        return self._sound(verdicts, len(conversations))

    async def _aonce(
        self, conversations: Sequence[Conversation], side: Side, deadline: float | None
    ) -> list[Verdict]:
        try:
            async with asyncio.timeout(self._left(deadline)):
                verdicts = await self.guard.acheck(conversations, side)
        except TimeoutError:
            raise self._late() from None
        return self._sound(verdicts, len(conversations))

    def _deadline(self) -> float | None:
        return None if self._timeout is None else time.monotonic() + self._timeout

    def _left(self, deadline: float | None) -> float | None:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise self._late()
        return left

    def _late(self) -> GuardTimeoutError:
        return GuardTimeoutError(f"no verdict within {self._timeout} s")

    def _sound(self, verdicts: object, expected: int) -> list[Verdict]:
        if not isinstance(verdicts, list) or len(verdicts) != expected:
            raise GuardOutputError(f"the guard owes a list of {expected} verdicts")
        for verdict in verdicts:
            if not isinstance(verdict, Verdict):
                raise GuardOutputError(f"the guard gave a {type(verdict).__name__}, not a Verdict")
            scores = [verdict.score, *(finding.score for finding in verdict.findings)]
            if not all(score is None or 0 <= score <= 1 for score in scores):
                raise GuardOutputError("the guard gave a score that is not in [0, 1]")
        return verdicts

    def _too_long(self, conversation: Conversation, side: Side) -> bool:
        return len(conversation.checked(side).text) > self._limit

    def _refused(self) -> Verdict:
        reason = f"longer than {self._limit} characters"
        return Verdict(self.guard.name, self.guard.revision, failed=True, reason=reason)

    def _failed(self, error: Exception) -> Verdict:
        # Only the error's type: its message could hold the checked text.
        late = isinstance(error, GuardTimeoutError)
        reason = str(self._late()) if late else type(error).__name__
        logger.error("guard %r could not judge: %s", self.guard.name, reason)
        return Verdict(self.guard.name, self.guard.revision, failed=True, reason=reason)
