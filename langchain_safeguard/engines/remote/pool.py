"""Several servers: which one to ask, when to ask another one, and when to ask none."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from langchain_safeguard.engines.remote.dialect import Dialect
from langchain_safeguard.engines.remote.replica import Refusal, Replica, Trouble
from langchain_safeguard.errors import (
    GuardConnectionError,
    GuardError,
    GuardLoadError,
    GuardOutputError,
    GuardTimeoutError,
)

logger = logging.getLogger(__name__)

_ATTEMPTS = 3
"""How often to try, beside once for each server."""
_CHECK_WITHIN = 15.0
"""The most seconds a check of a server's health may take."""
_PAUSE, _LONGEST_PAUSE = 0.25, 10.0
"""The seconds between two checks of a server that is not well: first, and at most."""

T = TypeVar("T")


class Pool:
    """Chooses among servers that run the same model; lives in one event loop.

    The least busy server is asked. One that fails is left for another; after several failures in a
    row it is asked nothing more (its circuit is open) until a check of its health, which includes a
    completion, succeeds.

    Args:
        replicas: The servers.
        check: Finds out what a server can do.
        most: The most questions under way at one server.
        failover_after: After how many seconds without an answer another server is asked.
    """

    def __init__(
        self,
        replicas: Sequence[Replica],
        check: Callable[[Replica], Awaitable[Dialect]],
        *,
        most: int,
        failover_after: float,
    ) -> None:
        """Store."""
        self.replicas = replicas
        self._check = check
        self._most = most
        self._failover_after = failover_after
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._healing: set[asyncio.Task[None]] = set()
        self._jitter = wait_random_exponential(multiplier=0.1, max=2)

    async def connect(self) -> None:
        """Check the health of all servers; go on with those that are well.

        Raises:
            GuardLoadError: One of them does not run the model as it must.
            GuardConnectionError: None can be reached.
        """
        found = await asyncio.gather(*map(self._checked, self.replicas))
        wrong = [error for error in found if isinstance(error, GuardLoadError)]
        if wrong:
            raise wrong[0]
        if None not in found:
            raise GuardConnectionError("; ".join(map(str, found)))
        for error in filter(None, found):
            logger.warning("a server is asked nothing until it is well: %s", error)
        self.mend()

    def mend(self) -> None:
        """Check the health of all that are not well, again and again until they are."""
        for replica in self.replicas:
            if not replica.closed:
                self._start_healing(replica)

    async def ask(self, work: Callable[[Replica], Awaitable[T]]) -> T:
        """Have something done by one server, or by another one if that fails.

        Raises:
            GuardError: None of them does it; the error says why the last one did not.
        """
        tried: set[Replica] = set()

        def pause(state: RetryCallState) -> float:
            fresh = any(each.closed for each in self.replicas if each not in tried)
            return 0.0 if fresh else self._jitter(state)

        retrying = AsyncRetrying(
            stop=stop_after_attempt(len(self.replicas) + _ATTEMPTS),
            wait=pause,
            retry=retry_if_exception_type(Trouble),
            reraise=True,
        )
        try:
            return await retrying(self._attempt, work, tried)
        except Trouble as trouble:
            error = trouble.error
        # Outside, so that no chain of errors leads back to what was sent.
        raise error

    async def _attempt(self, work: Callable[[Replica], Awaitable[T]], tried: set[Replica]) -> T:
        replica = await self._take(tried)
        tried.add(replica)
        others = any(each.closed for each in self.replicas if each not in tried)
        late = Trouble(GuardTimeoutError(f"{replica.url} gave no answer in time"))
        begin = time.monotonic()
        try:
            async with asyncio.timeout(self._failover_after if others else None):
                done = await work(replica)
        except TimeoutError:
            trouble = late
        except asyncio.CancelledError:
            # The deadline came, or nobody waits any more: after so long it is the server's fault.
            if time.monotonic() - begin >= self._failover_after and replica.failed(late):
                self._open(replica, late.error)
            raise
        except Trouble as error:
            trouble = error
        else:
            replica.succeeded()
            return done
        finally:
            replica.busy -= 1
            self._wake()
        if replica.failed(trouble):
            self._open(replica, trouble.error)
        raise trouble

    async def _take(self, tried: set[Replica]) -> Replica:
        """Wait for a server that is well and has a place; those not tried yet go first."""
        while True:
            well = [each for each in self.replicas if each.closed]
            if not well:
                raise GuardConnectionError(
                    f"none of {len(self.replicas)} servers is well: "
                    + ", ".join(each.url for each in self.replicas)
                )
            now = time.monotonic()
            fresh = [each for each in well if each not in tried] or well
            free = [each for each in fresh if each.busy < self._most and each.rests_until <= now]
            if free:
                replica = min(free, key=lambda each: (each.busy, random.random()))
                replica.busy += 1
                return replica
            rests = [each.rests_until - now for each in fresh if each.rests_until > now]
            await self._wait(min(rests, default=None))

    async def _wait(self, seconds: float | None) -> None:
        """Wait until a place may be free."""
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await asyncio.wait([place], timeout=seconds)
        except asyncio.CancelledError:
            if place.done():
                self._wake()
            raise
        finally:
            place.cancel()

    def _wake(self) -> None:
        """Let the next one that waits look again."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return

    def _open(self, replica: Replica, error: GuardError) -> None:
        """Ask a server nothing more until it is well."""
        logger.warning("%s is asked nothing until it is well again: %s", replica.url, error)
        for place in self._waiting:
            # They may wait for a server that is not there any more.
            if not place.done():
                place.set_result(None)
        self._start_healing(replica)

    def _start_healing(self, replica: Replica) -> None:
        task = asyncio.ensure_future(self._heal(replica))
        self._healing.add(task)
        task.add_done_callback(self._healing.discard)

    async def _heal(self, replica: Replica) -> None:
        pause, known = _PAUSE, ""
        while True:
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(2 * pause, _LONGEST_PAUSE)
            error = await self._checked(replica)
            if error is None:
                logger.warning("%s is well again", replica.url)
                for _ in range(self._most):
                    self._wake()
                return
            if isinstance(error, GuardLoadError) and str(error) != known:
                known = str(error)
                logger.error("%s cannot be used: %s", replica.url, error)

    async def _checked(self, replica: Replica) -> GuardError | None:
        """Check the health of a server; return what is wrong with it."""
        try:
            async with asyncio.timeout(_CHECK_WITHIN):
                replica.heal(await self._check(replica))
        except TimeoutError:
            return GuardTimeoutError(f"{replica.url} gave no answer within {_CHECK_WITHIN:g} s")
        except Trouble as trouble:
            return trouble.error
        except Refusal as refusal:
            return GuardConnectionError(f"{replica.url} answers HTTP {refusal.status}")
        except (GuardLoadError, GuardOutputError) as error:
            return error
        except Exception as error:
            # Whatever a server answers, its health is checked again.
            return GuardOutputError(f"{replica.url} cannot be checked: {type(error).__name__}")
        return None
