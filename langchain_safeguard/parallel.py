"""Checking the input while the model already works on its answer.

Nothing of the answer is handed on before the input has passed; a block stops the model.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from typing import Any, TypeVar

from langchain_safeguard.decision import Decision
from langchain_safeguard.hushed import aclose, close
from langchain_safeguard.threads import in_thread

T = TypeVar("T")

_END: Any = object()


class InputStoppedError(Exception):
    """The input did not pass as it is; never leaves the library.

    Attributes:
        decision: What was decided: a refusal or a rewritten input.
    """

    def __init__(self, decision: Decision) -> None:
        """Store."""
        super().__init__("the input did not pass")
        self.decision = decision


def gated(chunks: Iterator[T], check: Callable[[], Decision]) -> Generator[T]:
    """Yield a stream that starts at once, but hold it until the input has passed.

    Args:
        chunks: The stream; it is closed when the input does not pass.
        check: Decides about the input; runs in a thread of its own.

    Raises:
        InputStoppedError: The input did not pass. Nothing was yielded.
    """
    verdict = in_thread(check, "input-check")
    held: list[T] = []
    failure: Exception | None = None
    try:
        while not verdict.done():
            try:
                chunk = next(chunks, _END)
            except Exception as error:
                # Whether the model failed matters only to whoever may hear of it.
                failure = error
                break
            if chunk is _END:
                break
            held.append(chunk)
        decision = verdict.result()
        if not decision.passes:
            raise InputStoppedError(decision)
        if failure is not None:
            raise failure
        yield from held
        yield from chunks
    finally:
        close(chunks)


async def agated(chunks: AsyncIterator[T], check: Awaitable[Decision]) -> AsyncGenerator[T]:
    """Do what `gated` does; a block also interrupts a model that has not said anything yet."""
    verdict = asyncio.ensure_future(check)
    pull: asyncio.Future[T] | None = None
    held: list[T] = []
    try:
        while not verdict.done():
            pull = asyncio.ensure_future(anext(chunks, _END))
            await asyncio.wait({pull, verdict}, return_when=asyncio.FIRST_COMPLETED)
            if not pull.done() or pull.exception() or pull.result() is _END:
                break
            held.append(pull.result())
            pull = None
        decision = await verdict
        if not decision.passes:
            raise InputStoppedError(decision)
        for chunk in held:
            yield chunk
        if pull is not None:
            chunk, pull = await pull, None
            if chunk is _END:
                return
            yield chunk
        async for chunk in chunks:
            yield chunk
    finally:
        await _cancel(pull, verdict)
        await aclose(chunks)


def both(check: Callable[[], Decision], call: Callable[[], T]) -> tuple[Decision, T | None]:
    """Check the input while the model is called.

    A blocking call cannot be cancelled: when the input does not pass, nobody waits for it any
    longer, and its answer is dropped.

    Returns:
        The decision, and the answer if the input passed.
    """
    answer = in_thread(call, "model-call")
    decision = check()
    return decision, answer.result() if decision.passes else None


async def aboth(check: Awaitable[Decision], call: Awaitable[T]) -> tuple[Decision, T | None]:
    """Check the input while the model is called; a call is cancelled if the input does not pass."""
    answer, verdict = asyncio.ensure_future(call), asyncio.ensure_future(check)
    try:
        decision = await verdict
        return decision, await answer if decision.passes else None
    finally:
        await _cancel(answer, verdict)


async def _cancel(*tasks: asyncio.Future[Any] | None) -> None:
    """Cancel what still runs and wait until it has ended."""
    running = {task for task in tasks if task is not None and not task.done()}
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running)
    for ended in tasks:
        # Looked at, so that asyncio does not report a failure nobody asked for.
        if ended is not None and not ended.cancelled():
            ended.exception()
