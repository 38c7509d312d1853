"""Channels that show what happens inside an app: events and run logs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Literal

from langchain_safeguard.testing.channels import Channel, Probe
from langchain_safeguard.testing.transcript import (
    Attempt,
    ChannelUnavailableError,
    Transcript,
)


def see_event(see: Attempt, event: Mapping[str, Any]) -> None:
    """Note one event of version 1 or 2; each run's stream is joined by itself."""
    see(
        str(event.get("event", "event")),
        {key: event.get(key) for key in ("data", "metadata", "tags")},
        source=str(event.get("name", "")),
        run=str(event.get("run_id", "")),
    )


def see_protocol_event(see: Attempt, event: object) -> None:
    """Note one event of the version 3 protocol: a chat model's or a graph's."""
    kind, run = "event", ""
    if isinstance(event, Mapping):
        kind = str(event.get("event") or event.get("method") or "event")
        params = event.get("params")
        data = params.get("data") if isinstance(params, Mapping) else None
        # Graphs send (payload, metadata) pairs; the metadata tells parallel calls apart.
        if isinstance(data, tuple | list) and len(data) == 2 and isinstance(data[1], Mapping):
            run = str(data[1].get("run_id") or data[1].get("langgraph_checkpoint_ns") or "")
    see(kind, event, run=run)


def _astream_events(version: Literal["v1", "v2"]) -> Callable[[Probe, Transcript], Any]:
    async def run(probe: Probe, transcript: Transcript) -> None:
        with transcript.attempt(f"astream_events {version}") as see:
            async for event in probe.runnable.astream_events(
                probe.input, probe.config, version=version
            ):
                see_event(see, event)

    return run


async def _astream_log(probe: Probe, transcript: Transcript) -> None:
    with transcript.attempt("astream_log diff") as see:
        async for patch in probe.runnable.astream_log(probe.input, probe.config, diff=True):
            for op in patch.ops:
                see("op", op.get("value"), source=op["path"])
    with transcript.attempt("astream_log state") as see:
        async for log in probe.runnable.astream_log(probe.input, probe.config, diff=False):
            see("state", log.state)


def _require_v3(probe: Probe, method: str) -> Callable[..., Any]:
    found = getattr(probe.runnable, method, None)
    if found is None:
        raise ChannelUnavailableError("this langchain-core has no version 3 events")
    return found  # type: ignore[no-any-return]


def _only_if_implemented(error: NotImplementedError) -> None:
    """Base runnables have the method but raise; any other such error belongs to the app."""
    text = str(error)
    if "v3 streaming protocol" in text or "does not support" in text:
        raise ChannelUnavailableError(
            "this kind of runnable has no version 3 events (chat models and graphs have)"
        ) from error


def _stream_events_v3(probe: Probe, transcript: Transcript) -> None:
    start = _require_v3(probe, "stream_events")
    with transcript.attempt("stream_events v3") as see:
        try:
            run = start(probe.input, probe.config, version="v3")
        except NotImplementedError as error:
            _only_if_implemented(error)
            raise
        for event in run:
            see_protocol_event(see, event)
        see("output", run.output)
    with transcript.attempt("stream_events v3 projections") as see:
        run = start(probe.input, probe.config, version="v3")
        for message in getattr(run, "messages", [run]):
            _see_projections(see, message)


def _see_projections(see: Attempt, message: Any) -> None:
    """The typed views of one message: what a front end shows."""
    for text in message.text:
        see("text", text, run=str(message.message_id))
    for text in message.reasoning:
        see("reasoning", text, run=str(message.message_id))
    see("tool_calls", message.tool_calls.get())
    see("output", message.output)


async def _astream_events_v3(probe: Probe, transcript: Transcript) -> None:
    start = _require_v3(probe, "astream_events")
    with transcript.attempt("astream_events v3") as see:
        try:
            run = await start(probe.input, probe.config, version="v3")
        except NotImplementedError as error:
            _only_if_implemented(error)
            raise
        async for event in run:
            see_protocol_event(see, event)
        see("output", await (run.output() if callable(run.output) else run.output))
    with transcript.attempt("astream_events v3 projections") as see:
        run = await start(probe.input, probe.config, version="v3")
        async for message in getattr(run, "messages", None) or _one(run):
            await _asee_projections(see, message)


async def _asee_projections(see: Attempt, message: Any) -> None:
    async for text in message.text:
        see("text", text, run=str(message.message_id))
    async for text in message.reasoning:
        see("reasoning", text, run=str(message.message_id))
    see("tool_calls", await message.tool_calls)
    see("output", await message.output)


async def _one(value: Any) -> AsyncIterator[Any]:
    yield value


EVENT_CHANNELS = (
    Channel("astream_events_v1", "events", arun=_astream_events("v1"), speaks=False),
    Channel("astream_events_v2", "events", arun=_astream_events("v2"), speaks=False),
    Channel("stream_events_v3", "events", run=_stream_events_v3),
    Channel("astream_events_v3", "events", arun=_astream_events_v3),
    Channel("astream_log", "events", arun=_astream_log, speaks=False),
)
