"""Channels of LangGraph: stream modes and checkpoints, with the app as a node or as the graph."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, TypedDict

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda

from langchain_safeguard.testing.channels import Channel, Probe
from langchain_safeguard.testing.event_channels import see_protocol_event
from langchain_safeguard.testing.transcript import (
    Attempt,
    ChannelUnavailableError,
    Transcript,
)

_MODES = ("values", "updates", "messages", "custom", "debug", "tasks", "checkpoints")
_SPEAKING = frozenset({"values", "updates", "debug", "tasks", "checkpoints"})


class _State(TypedDict, total=False):
    """State of the graph around an app that is not a chat model."""

    input: Any
    output: Any


class Graph:
    """The app as LangGraph runs it, with a checkpointer that keeps everything in memory.

    Attributes:
        compiled: The graph: the app itself if it is one, else a graph with the app as its node.
        input: What the graph is given.
        saver: The checkpointer.
    """

    def __init__(self, probe: Probe) -> None:
        """Build the graph that suits the app."""
        from langgraph.checkpoint.memory import InMemorySaver
        from langgraph.pregel import Pregel

        self.saver = InMemorySaver()
        self._probe = probe
        bound = probe.bound
        if isinstance(bound, Pregel):
            self.compiled: Any = bound.copy({"checkpointer": self.saver})
            self.input = probe.input
        elif isinstance(bound, BaseChatModel):
            from langgraph.graph import MessagesState

            self.compiled = self._around(MessagesState, "messages", "messages")
            self.input = {"messages": bound._convert_input(probe.input).to_messages()}
        else:
            self.compiled = self._around(_State, "input", "output")
            self.input = {"input": probe.input}

    def _around(self, schema: Any, reads: str, writes: str) -> Any:
        """A graph of one node that calls the app, in sync and async runs alike."""
        from langgraph.graph import END, START, StateGraph

        app = self._probe.runnable

        def call(state: Any, config: RunnableConfig) -> Any:
            return {writes: app.invoke(state[reads], config)}

        async def acall(state: Any, config: RunnableConfig) -> Any:
            return {writes: await app.ainvoke(state[reads], config)}

        builder = StateGraph(schema)
        builder.add_node("app", RunnableLambda(call, acall))
        builder.add_edge(START, "app")
        builder.add_edge("app", END)
        return builder.compile(checkpointer=self.saver)

    def config(self) -> RunnableConfig:
        """The caller's config on a thread of its own, so that runs do not continue each other."""
        return self._probe.with_config(configurable={"thread_id": str(uuid.uuid4())})

    def see_checkpoints(self, see: Attempt) -> None:
        """Note all that was saved: every state, every pending write, subgraphs too."""
        for saved in self.saver.list(None):
            see("checkpoint", saved.checkpoint)
            see("metadata", saved.metadata)
            see("pending_writes", saved.pending_writes)


def _see_part(see: Attempt, mode: str, part: Any) -> None:
    """Note one part of a stream with `subgraphs=True`: (namespace, data)."""
    _, data = part
    if mode == "messages":
        message, metadata = data
        run = str(message.id) if isinstance(message, BaseMessage) else ""
        see(mode, message, source=str(metadata.get("langgraph_node", "")), run=run)
        see(f"{mode} metadata", metadata)
    else:
        see(mode, data)


def _stream(mode: Any) -> Callable[[Probe, Transcript], None]:
    def run(probe: Probe, transcript: Transcript) -> None:
        with transcript.attempt("stream") as see:
            graph = Graph(probe)
            for part in graph.compiled.stream(
                graph.input, graph.config(), stream_mode=mode, subgraphs=True
            ):
                _see_part(see, mode, part)

    return run


def _astream(mode: Any) -> Callable[[Probe, Transcript], Any]:
    async def run(probe: Probe, transcript: Transcript) -> None:
        with transcript.attempt("astream") as see:
            graph = Graph(probe)
            async for part in graph.compiled.astream(
                graph.input, graph.config(), stream_mode=mode, subgraphs=True
            ):
                _see_part(see, mode, part)

    return run


def _saved(probe: Probe, transcript: Transcript) -> None:
    for durability in ("sync", "exit"):
        with transcript.attempt(f"invoke durability={durability}") as see:
            graph = Graph(probe)
            try:
                graph.compiled.invoke(graph.input, graph.config(), durability=durability)
            finally:
                # What was saved before an exception is saved all the same.
                graph.see_checkpoints(see)


async def _asaved(probe: Probe, transcript: Transcript) -> None:
    with transcript.attempt("ainvoke") as see:
        graph = Graph(probe)
        try:
            await graph.compiled.ainvoke(graph.input, graph.config())
        finally:
            graph.see_checkpoints(see)


def _events(probe: Probe, transcript: Transcript) -> None:
    with transcript.attempt("stream_events v3") as see:
        graph = Graph(probe)
        if not hasattr(graph.compiled, "stream_events"):
            raise ChannelUnavailableError("this langgraph has no version 3 events")
        run = graph.compiled.stream_events(graph.input, graph.config(), version="v3")
        for event in run:
            see_protocol_event(see, event)
        see("output", run.output)


async def _aevents(probe: Probe, transcript: Transcript) -> None:
    with transcript.attempt("astream_events v3") as see:
        graph = Graph(probe)
        run = await graph.compiled.astream_events(graph.input, graph.config(), version="v3")
        async for event in run:
            see_protocol_event(see, event)
        see("output", await run.output())


_NEEDS = ("langgraph",)

LANGGRAPH_CHANNELS = (
    *(
        Channel(
            f"langgraph_{mode}",
            "langgraph",
            _stream(mode),
            _astream(mode),
            speaks=mode in _SPEAKING,
            needs=_NEEDS,
        )
        for mode in _MODES
    ),
    Channel("langgraph_events_v3", "langgraph", _events, _aevents, needs=_NEEDS),
    Channel("langgraph_saved", "langgraph", _saved, _asaved, needs=_NEEDS),
)
