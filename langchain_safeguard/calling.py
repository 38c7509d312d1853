"""Calling what users hand in, handlers and rewriters, whatever kind of callable it is."""

from __future__ import annotations

import asyncio
import inspect
import math
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig

from langchain_safeguard.errors import ConfigurationError, EscalationError
from langchain_safeguard.threads import in_thread


def call_handler(
    function: Any,
    argument: Any,
    config: RunnableConfig | None = None,
    seconds: float | None = None,
) -> Any:
    """Call a handler or a rewriter, whatever kind of callable it is.

    Args:
        function: What is called.
        argument: With what.
        config: The config of the run, for a Runnable.
        seconds: How long it may take; it then runs in a thread of its own, in the caller's
            context. `None` waits for ever.

    Raises:
        EscalationError: It is late, or asynchronous.
    """
    if seconds is None:
        return _call(function, argument, config)
    call = in_thread(lambda: _call(function, argument, config), "safeguard-handler")
    try:
        return call.result(seconds)
    except TimeoutError:
        if call.done():
            raise
        raise _late(seconds) from None


async def acall_handler(
    function: Any,
    argument: Any,
    config: RunnableConfig | None = None,
    seconds: float | None = None,
) -> Any:
    """Call a handler or a rewriter without blocking the event loop; see `call_handler`."""
    if seconds is None:
        return await _acall(function, argument, config)
    call = asyncio.ensure_future(_acall(function, argument, config))
    try:
        # Not `wait_for`, which waits for what it has cancelled: some do not listen.
        await asyncio.wait({call}, timeout=seconds)
        if not call.done():
            raise _late(seconds)
        return call.result()
    finally:
        call.cancel()
        # Looked at: asyncio would log what it fails with later, and that may quote the text.
        call.add_done_callback(lambda late: late.cancelled() or late.exception())


def seconds_or_none(name: str, value: object) -> float | None:
    """Check that `value` is a number of seconds above 0, or `None`.

    Raises:
        ConfigurationError: It is not.
    """
    if value is None:
        return None
    wrong = isinstance(value, bool) or not isinstance(value, int | float)
    if wrong or not 0 < value < math.inf:  # type: ignore[operator]
        raise ConfigurationError(f"{name}={value!r}; allowed: seconds above 0, or None")
    return value  # type: ignore[return-value]


def _call(function: Any, argument: Any, config: RunnableConfig | None) -> Any:
    if isinstance(function, Runnable):
        return function.invoke(argument, config)
    result = function(argument)
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise EscalationError("it is asynchronous; use ainvoke, astream or acheck")
    return result


async def _acall(function: Any, argument: Any, config: RunnableConfig | None) -> Any:
    if isinstance(function, Runnable):
        return await function.ainvoke(argument, config)
    if acall := getattr(function, "acall", None):
        return await acall(argument)
    if inspect.iscoroutinefunction(function):
        return await function(argument)
    result = await asyncio.wrap_future(in_thread(lambda: function(argument), "safeguard-handler"))
    # Of an object whose `__call__` is asynchronous, or a lambda around such a function.
    return await result if inspect.isawaitable(result) else result


def _late(seconds: float) -> EscalationError:
    return EscalationError(f"no answer within {seconds} s")
