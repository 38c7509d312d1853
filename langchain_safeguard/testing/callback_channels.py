"""Channels of people who listen in: custom callback handlers, and listeners of the run.

`ambient_callbacks` runs only when it is named. It is a handler that reaches every call through a
context variable (`register_configure_hook`), as `get_usage_metadata_callback` does, so it hears
inner calls that were given no callbacks at all. Hardly anybody guards against it.

Tracers are left out on purpose. A `BaseTracer` that does not stream, such as LangSmith's
`LangChainTracer`, is the operator's own record of what really happened; a guard may keep it
informed of the inner call. Everything that is not a tracer counts as somebody watching.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from typing import Any
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.tracers.context import register_configure_hook

from langchain_safeguard.testing.channels import Channel, Probe
from langchain_safeguard.testing.transcript import Attempt, Transcript

_CONFIGURATION = frozenset({"serialized", "invocation_params", "options"})
"""What a start hook says of the model's settings; a scripted fake has its answers there."""

_HOOKS = tuple(name for name in dir(BaseCallbackHandler) if name.startswith("on_"))


class _Recording:
    """What all recording handlers have: where to note, and how."""

    def __init__(self, see: Attempt) -> None:
        self.see = see

    def note(self, hook: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note one call of a hook with all it was given, but for the model's settings."""
        # The first argument of every start hook is the runnable, serialized.
        positional = args[1:] if hook.endswith("_start") else args
        named = {key: value for key, value in kwargs.items() if key not in _CONFIGURATION}
        heard = {str(number): value for number, value in enumerate(positional)} | named
        self.see(
            hook,
            heard,
            source=str(kwargs.get("name") or ""),
            run=str(kwargs.get("run_id", "")),
        )


def _hook(name: str) -> Callable[..., None]:
    def heard(self: _Recording, *args: Any, **kwargs: Any) -> None:
        self.note(name, args, kwargs)

    return heard


def _async_hook(name: str) -> Callable[..., Any]:
    async def heard(self: _Recording, *args: Any, **kwargs: Any) -> None:
        self.note(name, args, kwargs)

    return heard


class _Tapping:
    """Makes a handler one of the streaming kind: chat models then stream even in `invoke`."""

    see: Attempt

    def tap_output_iter(self, run_id: UUID, output: Iterator[Any]) -> Iterator[Any]:
        for chunk in output:
            self.see("tapped chunk", chunk, run=str(run_id))
            yield chunk

    async def tap_output_aiter(
        self, run_id: UUID, output: AsyncIterator[Any]
    ) -> AsyncIterator[Any]:
        async for chunk in output:
            self.see("tapped chunk", chunk, run=str(run_id))
            yield chunk


def _v2_marker() -> type | None:
    """The class by which a handler asks for content-block events, where this core has one."""
    try:
        from langchain_core.tracers import _streaming
    except ImportError:
        return None
    return getattr(_streaming, "_V2StreamingCallbackHandler", None)


def _handlers(base: type[BaseCallbackHandler]) -> tuple[tuple[str, type], ...]:
    """The recording handlers on a base: a plain one, and those of the two streaming kinds."""
    make = _async_hook if base is AsyncCallbackHandler else _hook
    hooks = {name: make(name) for name in _HOOKS}
    plain = type("RecordingHandler", (_Recording, base), hooks)
    found = [("", plain), (" (tapping)", type("TappingHandler", (_Tapping, plain), {}))]
    marker = _v2_marker()
    if marker is not None:
        found.append((" (content blocks)", type("ContentBlockHandler", (plain, marker), {})))
    return tuple(found)


def _run(probe: Probe, transcript: Transcript) -> None:
    for label, handler in _handlers(BaseCallbackHandler):
        with transcript.attempt(f"invoke{label}") as see:
            probe.runnable.invoke(probe.input, probe.with_config(callbacks=[handler(see)]))
        with transcript.attempt(f"stream{label}") as see:
            for _ in probe.runnable.stream(
                probe.input, probe.with_config(callbacks=[handler(see)])
            ):
                pass
        with transcript.attempt(f"batch{label}") as see:
            probe.runnable.batch([probe.input], probe.with_config(callbacks=[handler(see)]))


def _arun(base: type[BaseCallbackHandler]) -> Callable[[Probe, Transcript], Any]:
    async def run(probe: Probe, transcript: Transcript) -> None:
        for label, handler in _handlers(base):
            with transcript.attempt(f"ainvoke{label}") as see:
                config = probe.with_config(callbacks=[handler(see)])
                await probe.runnable.ainvoke(probe.input, config)
            with transcript.attempt(f"astream{label}") as see:
                config = probe.with_config(callbacks=[handler(see)])
                async for _ in probe.runnable.astream(probe.input, config):
                    pass
            with transcript.attempt(f"abatch{label}") as see:
                config = probe.with_config(callbacks=[handler(see)])
                await probe.runnable.abatch([probe.input], config)

    return run


def _see_run(see: Attempt, run: Any) -> None:
    """Note a run that was handed to a listener, with all the runs inside it."""
    heard = {"inputs": run.inputs, "outputs": run.outputs, "error": run.error, "events": run.events}
    see("run", heard, source=run.name, run=str(run.id))
    for child in run.child_runs:
        _see_run(see, child)


def _listen(probe: Probe, transcript: Transcript) -> None:
    with transcript.attempt("invoke") as see:
        hear = functools.partial(_see_run, see)
        app = probe.runnable.with_listeners(on_end=hear, on_error=hear)
        app.invoke(probe.input, probe.config)


async def _alisten(probe: Probe, transcript: Transcript) -> None:
    with transcript.attempt("ainvoke") as see:

        async def hear(run: Any) -> None:
            _see_run(see, run)

        app = probe.runnable.with_alisteners(on_end=hear, on_error=hear)
        await app.ainvoke(probe.input, probe.config)


_AMBIENT: ContextVar[Any] = ContextVar("leak_kit_handler", default=None)


@functools.cache
def _register_ambient() -> None:
    """Once per process, since a hook cannot be taken back; without a handler it does nothing."""
    register_configure_hook(_AMBIENT, inheritable=True)


@contextlib.contextmanager
def _ambient(see: Attempt) -> Iterator[None]:
    """Put a recording handler into the context, where every call below finds it."""
    _register_ambient()
    _, handler = _handlers(BaseCallbackHandler)[0]
    token = _AMBIENT.set(handler(see))
    try:
        yield
    finally:
        _AMBIENT.reset(token)


def _overhear(probe: Probe, transcript: Transcript) -> None:
    with transcript.attempt("invoke") as see, _ambient(see):
        probe.runnable.invoke(probe.input, probe.config)
    with transcript.attempt("stream") as see, _ambient(see):
        for _ in probe.runnable.stream(probe.input, probe.config):
            pass


async def _aoverhear(probe: Probe, transcript: Transcript) -> None:
    with transcript.attempt("ainvoke") as see, _ambient(see):
        await probe.runnable.ainvoke(probe.input, probe.config)
    with transcript.attempt("astream") as see, _ambient(see):
        async for _ in probe.runnable.astream(probe.input, probe.config):
            pass


CALLBACK_CHANNELS = (
    Channel("callbacks", "callbacks", _run, _arun(BaseCallbackHandler), speaks=False),
    Channel("async_callbacks", "callbacks", arun=_arun(AsyncCallbackHandler), speaks=False),
    Channel("listeners", "callbacks", _listen, _alisten, speaks=False),
    Channel(
        "ambient_callbacks", "callbacks", _overhear, _aoverhear, speaks=False, by_default=False
    ),
)
