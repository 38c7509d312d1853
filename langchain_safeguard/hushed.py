"""Running steps whose output is not checked yet, so that nobody watches.

Whoever listens to a run (`astream_events`, LangGraph's `messages` mode, a callback that prints
tokens) hears every step inside it too, long before an output guard has seen the answer. So the
steps between two guards run *hushed*: of the callback handlers only tracers stay, which record the
run for its operators, such as LangSmith's. Everyone else hears the guarded run itself.

Handlers reach a step in four ways, and each is closed here: through the config (`hushed`), through
context variables that steps fall back on when they are given no config, or that `configure` hooks
read (`quiet`), and attached to a step itself (`muted`).

Where a guarded model is called by code that is not ours, that code runs quietly too, and the model
is let back in front of those who listened before: see `langchain_safeguard.stage`.
"""

from __future__ import annotations

import sys
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Generator,
    Iterator,
    Sequence,
)
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import is_dataclass, replace
from typing import Any, TypeVar, cast

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.runnables import Runnable, RunnableConfig, RunnableSerializable
from langchain_core.runnables.config import ensure_config, var_child_runnable_config
from langchain_core.tracers import _streaming, context, root_listeners
from langchain_core.tracers.base import AsyncBaseTracer, BaseTracer

T = TypeVar("T")
R = TypeVar("R", bound=Runnable[Any, Any])

_LISTENERS = (root_listeners.RootListenersTracer, root_listeners.AsyncRootListenersTracer)
"""Tracers by descent only: they hand whole runs to functions of the app (`with_listeners`)."""
_PROTOCOL_MARKERS: tuple[type, ...] = tuple(
    marker
    for marker in [getattr(_streaming, "_V2StreamingCallbackHandler", None)]
    if marker is not None
)
STAGE: ContextVar[Any] = ContextVar("safeguard_stage", default=None)
"""Where a guarded model may be heard; there is no such place in `quiet`."""
_GRAPH_STREAM = "__pregel_stream"
_GRAPH_RUNTIME = "__pregel_runtime"
GRAPH_STREAMS = (_GRAPH_STREAM, _GRAPH_RUNTIME)


def is_operators(handler: BaseCallbackHandler) -> bool:
    """Tell tracers, which record runs for operators, from handlers that show content to users."""
    if isinstance(handler, (*_LISTENERS, *_PROTOCOL_MARKERS)):
        return False
    # What `_StreamingCallbackHandler` of langchain-core looks for: run logs are streaming tracers.
    if hasattr(handler, "tap_output_iter"):
        return False
    return isinstance(handler, BaseTracer | AsyncBaseTracer)


def hushed(config: RunnableConfig | None = None) -> RunnableConfig:
    """Return a config for steps whose output is not checked yet.

    Tags, metadata, `configurable` values and the parent run survive, so that traces nest as they
    should. Run it inside `quiet(config)`, or step through its stream with `quietly`.

    Args:
        config: The guarded run's config for its children; what stands in the context is merged
            in, as everywhere in LangChain.
    """
    quieter = ensure_config(config)
    # Never None: `ensure_config` of the next step would take None for "inherit from the context".
    quieter["callbacks"] = operators(quieter.get("callbacks"))
    # These name the run whose callbacks they came with, as in `patch_config` of langchain-core.
    quieter.pop("run_name", None)
    quieter.pop("run_id", None)
    quieter["configurable"] = _unstreamed(quieter.get("configurable") or {})
    return quieter


def operators(
    callbacks: list[BaseCallbackHandler] | BaseCallbackManager | None,
) -> list[BaseCallbackHandler] | BaseCallbackManager:
    """Return these callbacks without the handlers that could show content; the rest is a copy."""
    if callbacks is None or isinstance(callbacks, list):
        return [handler for handler in callbacks or () if is_operators(handler)]
    quieter = callbacks.copy()
    quieter.handlers = [h for h in quieter.handlers if is_operators(h)]
    quieter.inheritable_handlers = [h for h in quieter.inheritable_handlers if is_operators(h)]
    return quieter


def _unstreamed(configurable: dict[str, Any]) -> dict[str, Any]:
    """Cut a LangGraph graph among the steps off the stream of the graph around it."""
    quieter = {key: value for key, value in configurable.items() if key != _GRAPH_STREAM}
    runtime = quieter.get(_GRAPH_RUNTIME)
    if is_dataclass(runtime) and hasattr(runtime, "stream_writer"):
        quieter[_GRAPH_RUNTIME] = replace(
            cast(Any, runtime), stream_writer=lambda *_args, **_kwargs: None
        )
    return quieter


@contextmanager
def quiet(config: RunnableConfig) -> Iterator[None]:
    """Let nobody but the operators listen through the context while this is entered.

    A step that calls another one without handing its config on makes LangChain take the config
    from the context: there stands `config` now, and not that of the graph or chain around. Handlers
    that context managers such as `get_usage_metadata_callback()` attach to every run hear the
    guarded run, and would otherwise hear (and count) the same answer twice.

    Args:
        config: What `hushed` returned.
    """
    with ExitStack() as stack:
        # Whoever was let in front of the listeners may not stay there in here.
        stack.enter_context(holding(STAGE, None))
        stack.enter_context(holding(var_child_runnable_config, config))
        for variable, *_ in hooks():
            handler = variable.get()
            if handler is not None and not is_operators(handler):
                stack.enter_context(holding(variable, None))
        tools = sys.modules.get("langgraph.pregel._tools")
        if writer := getattr(tools, "_tool_call_writer", None):
            # With this one a tool of LangGraph streams its output while it runs.
            stack.enter_context(holding(writer, None))
        yield


def hooks() -> Sequence[tuple[Any, ...]]:
    """Return the `configure` hooks of langchain-core, each with its context variable first."""
    hooks: Sequence[tuple[Any, ...]] = getattr(context, "_configure_hooks", ())
    return hooks


@contextmanager
def holding(variable: ContextVar[Any], value: Any) -> Iterator[None]:
    """Let a context variable have a value while this is entered."""
    token = variable.set(value)
    try:
        yield
    finally:
        # An abandoned coroutine may be closed from another context: nothing to restore there.
        with suppress(ValueError):
            variable.reset(token)


def quietly(chunks: Iterator[T], config: RunnableConfig) -> Generator[T]:
    """Step through a stream inside `quiet`; closing this closes the stream."""
    try:
        while True:
            # Entered anew for each step: between them the context belongs to the consumer.
            with quiet(config):
                try:
                    chunk = next(chunks)
                except StopIteration:
                    return
            yield chunk
    finally:
        with quiet(config):
            close(chunks)


async def aquietly(chunks: AsyncIterator[T], config: RunnableConfig) -> AsyncGenerator[T]:
    """Step through a stream inside `quiet`; closing this closes the stream."""
    try:
        while True:
            with quiet(config):
                try:
                    chunk = await anext(chunks)
                except StopAsyncIteration:
                    return
            yield chunk
    finally:
        with quiet(config):
            await aclose(chunks)


def close(chunks: Iterator[Any]) -> None:
    """Close a stream that can be closed, so that nothing more is generated."""
    if closing := getattr(chunks, "close", None):
        closing()


async def aclose(chunks: AsyncIterator[Any]) -> None:
    """Close a stream that can be closed, so that nothing more is generated."""
    if closing := getattr(chunks, "aclose", None):
        await closing()


def muted(runnable: R) -> R:
    """Return the runnable without handlers of its own that could show content.

    Models, tools and retrievers have `callbacks`; bindings have callbacks and listeners in their
    config. What needs no change is returned as it is; what does is a shallow copy, so that clients
    and connections stay shared. Only what is a field of a runnable is found, not what a lambda
    holds.
    """
    return cast(R, rebuilt(runnable, _without_listeners))


def _without_listeners(part: Runnable[Any, Any]) -> Runnable[Any, Any]:
    updates: dict[str, Any] = {}
    own = getattr(part, "__dict__", {})
    if own.get("callbacks") and _is_loud(own["callbacks"]):
        updates["callbacks"] = operators(own["callbacks"])
    settings = own.get("config")
    if isinstance(settings, dict) and _is_loud(settings.get("callbacks")):
        updates["config"] = {**settings, "callbacks": operators(settings["callbacks"])}
    if own.get("config_factories"):
        updates["config_factories"] = []
    if not updates or not isinstance(part, RunnableSerializable):
        return part
    return part.model_copy(update=updates)


def attached(runnable: Runnable[Any, Any]) -> list[BaseCallbackHandler]:
    """Return the handlers that `muted` takes off a runnable, without its listeners."""
    found: list[BaseCallbackHandler] = []

    def look(part: Runnable[Any, Any]) -> Runnable[Any, Any]:
        own = getattr(part, "__dict__", {})
        settings = own.get("config")
        bound = settings.get("callbacks") if isinstance(settings, dict) else None
        for callbacks in (own.get("callbacks"), bound):
            found.extend(
                h for h in handlers_in(callbacks) if not is_operators(h) and h not in found
            )
        return part

    rebuilt(runnable, look)
    return found


def _is_loud(callbacks: Any) -> bool:
    return not all(map(is_operators, handlers_in(callbacks)))


def handlers_in(callbacks: Any) -> list[BaseCallbackHandler]:
    """Return the handlers of a list, a manager, or nothing."""
    return callbacks if isinstance(callbacks, list) else getattr(callbacks, "handlers", [])


def rebuilt(
    runnable: Runnable[Any, Any],
    change: Callable[[Runnable[Any, Any]], Runnable[Any, Any]],
    until: tuple[type, ...] = (),
) -> Runnable[Any, Any]:
    """Apply `change` to a runnable and to all runnables among its fields, copying where needed.

    Args:
        runnable: The outermost runnable.
        change: Returns what stands in for a runnable: itself where nothing changes.
        until: Types of runnables whose own fields are left alone, after the change.
    """
    runnable = change(runnable)
    if not isinstance(runnable, RunnableSerializable) or isinstance(runnable, until):
        return runnable
    updates: dict[str, Any] = {}
    for name in type(runnable).model_fields:
        with suppress(KeyError):
            old = runnable.__dict__[name]
            new = _rebuilt_value(old, change, until)
            if new is not old:
                updates[name] = new
    return runnable.model_copy(update=updates) if updates else runnable


def _rebuilt_value(
    value: Any,
    change: Callable[[Runnable[Any, Any]], Runnable[Any, Any]],
    until: tuple[type, ...],
) -> Any:
    if isinstance(value, Runnable):
        return rebuilt(value, change, until)
    if type(value) in (list, tuple):
        items = [_rebuilt_value(item, change, until) for item in value]
        same = all(new is old for new, old in zip(items, value, strict=True))
        return value if same else type(value)(items)
    if type(value) is dict:
        mapped = {key: _rebuilt_value(item, change, until) for key, item in value.items()}
        return value if all(mapped[key] is value[key] for key in value) else mapped
    return value
