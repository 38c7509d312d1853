"""Asking guards so that every way of not answering ends in a failed verdict."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
import uuid
import weakref
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from tenacity import (
    AsyncRetrying,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from langchain_safeguard.caching.verdict_cache import VerdictCache
from langchain_safeguard.calling import seconds_or_none
from langchain_safeguard.conversation import Conversation
from langchain_safeguard.errors import ConfigurationError, GuardOutputError, GuardTimeoutError
from langchain_safeguard.guards.base import Guard
from langchain_safeguard.plans import adrive, drive
from langchain_safeguard.taxonomy import Side
from langchain_safeguard.verdict import Verdict

logger = logging.getLogger(__name__)

_AT_ONCE = 32
"""How many conversations of a failed batch are asked at the same time."""
_tokens: dict[int, tuple[weakref.ref[Guard], str]] = {}


@dataclass(frozen=True, slots=True)
class _Find:
    """Look verdicts up."""

    keys: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Ask:
    """Ask the guard."""

    conversations: Sequence[Conversation]


@dataclass(frozen=True, slots=True)
class _Keep:
    """Remember verdicts."""

    verdicts: dict[str, Verdict]


class GuardCaller:
    """Asks one guard, with a deadline and retries, and never raises.

    Args:
        guard: The guard.
        timeout: The seconds all attempts may take together; `None` waits for ever.
        attempts: How often to ask when the failure is transient (`GuardError.is_retryable`).
        limit: The longest text, in characters, that is judged.
        cache: Where known verdicts are found.

    Raises:
        ConfigurationError: A value is wrong; the message names it and what is allowed.
    """

    def __init__(
        self,
        guard: Guard,
        *,
        timeout: float | None,
        attempts: int,
        limit: int,
        cache: VerdictCache | None = None,
    ) -> None:
        """Check and store."""
        for name, number in (("attempts", attempts), ("max_characters", limit)):
            if type(number) is not int or number < 1:
                raise ConfigurationError(f"{name}={number!r}; allowed: 1, 2, ...")
        self.guard = guard
        self._timeout = seconds_or_none("timeout", timeout)
        self._limit = limit
        self._cache = cache
        self._retry: dict[str, Any] = {
            "stop": stop_after_attempt(attempts),
            "wait": wait_random_exponential(multiplier=0.05, max=2),
            "retry": retry_if_exception(lambda error: bool(getattr(error, "is_retryable", False))),
            "reraise": True,
        }

    def ask(
        self, conversations: Sequence[Conversation], side: Side, *, remember: bool = True
    ) -> list[Verdict]:
        """Judge; what is too long is not judged, and says so.

        Args:
            conversations: What is judged.
            side: Which part of it.
            remember: Whether the cache is used. Texts that still grow would only fill it.
        """

        def perform(step: _Find | _Ask | _Keep) -> Any:
            match step:
                case _Ask(wanted):
                    return self._ask(wanted, side)
                case _:
                    return self._look(step)

        return drive(self._plan(conversations, side, remember), perform)

    async def aask(
        self, conversations: Sequence[Conversation], side: Side, *, remember: bool = True
    ) -> list[Verdict]:
        """Judge without blocking the event loop; see `ask`."""

        async def perform(step: _Find | _Ask | _Keep) -> Any:
            match step:
                case _Ask(wanted):
                    return await self._aask(wanted, side)
                case _ if self._cache is not None and self._cache.is_shared:
                    return await asyncio.to_thread(self._look, step)
                case _:
                    return self._look(step)

        return await adrive(self._plan(conversations, side, remember), perform)

    def _plan(
        self, conversations: Sequence[Conversation], side: Side, remember: bool
    ) -> Generator[_Find | _Ask | _Keep, Any, list[Verdict]]:
        numbers = range(len(conversations))
        verdicts = {n: self._refused() for n in numbers if self._too_long(conversations[n], side)}
        keys: dict[int, str] = {}
        if remember and self._cache is not None:
            keys = {n: self._key(conversations[n], side) for n in numbers if n not in verdicts}
            found = yield _Find([*keys.values()])
            known = zip(keys, found, strict=True)
            verdicts |= {n: v.remembered() for n, v in known if v is not None}
        missing = [n for n in numbers if n not in verdicts]
        if missing:
            # Of those with the same key only the first is asked about.
            first = {keys.get(n, n): n for n in reversed(missing)}
            asking = sorted(first.values())
            asked = yield _Ask([conversations[n] for n in asking])
            verdicts |= dict(zip(asking, asked, strict=True))
            if keys:
                yield _Keep({keys[n]: verdicts[n] for n in asking})
            for n in missing:
                verdicts.setdefault(n, verdicts[first[keys.get(n, n)]].remembered())
        return [verdicts[n] for n in numbers]

    def _look(self, step: _Find | _Keep) -> list[Verdict | None] | None:
        assert self._cache is not None, "steps for the cache come only where there is one"
        if isinstance(step, _Find):
            return self._cache.find(step.keys)
        self._cache.keep(step.verdicts)
        return None

    def _key(self, conversation: Conversation, side: Side) -> str:
        """Return a hash of all that decides the verdict."""
        guard, kind = self.guard, type(self.guard)
        facts = (
            f"{kind.__module__}.{kind.__qualname__}",
            guard.name,
            guard.revision,
            # A tuple, so that no fingerprint can pass for an object's token.
            guard.fingerprint or (_token(guard),),
            side,
            self._reads(conversation, side),
        )
        return hashlib.sha256(repr(facts).encode("utf-8", "backslashreplace")).hexdigest()

    def _reads(self, conversation: Conversation, side: Side) -> object:
        try:
            return self.guard.reads(conversation, side)
        except Exception:
            # Its check tells whether it can judge.
            return Guard.reads(self.guard, conversation, side)

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
            if not verdict.has_sound_scores:
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


def _token(guard: Guard) -> str:
    """Return what stands for this object and for no other one, past or future, copies included."""
    known, token = _tokens.get(id(guard), (None, ""))
    if known is None or known() is not guard:
        # Of two threads that are here at once, one is only going to miss what it looks for.
        token = uuid.uuid4().hex
        place = id(guard)
        _tokens[place] = (weakref.ref(guard, lambda _: _tokens.pop(place, None)), token)
    return token
