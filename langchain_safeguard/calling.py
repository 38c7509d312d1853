"""Calling what users hand in, handlers and rewriters, whatever kind of callable it is."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig

from langchain_safeguard.errors import EscalationError
from langchain_safeguard.threads import in_thread


def call_handler(function: Any, argument: Any, config: RunnableConfig | None = None) -> Any:
    """Call a handler or a rewriter, whatever kind of callable it is."""
    if isinstance(function, Runnable):
        return function.invoke(argument, config)
    result = function(argument)
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise EscalationError("it is asynchronous; use ainvoke, astream or acheck")
    return result


async def acall_handler(function: Any, argument: Any, config: RunnableConfig | None = None) -> Any:
    """Call a handler or a rewriter without blocking the event loop."""
    if isinstance(function, Runnable):
        return await function.ainvoke(argument, config)
    if acall := getattr(function, "acall", None):
        return await acall(argument)
    if inspect.iscoroutinefunction(function):
        return await function(argument)
    return await asyncio.wrap_future(in_thread(lambda: function(argument), "safeguard-handler"))
