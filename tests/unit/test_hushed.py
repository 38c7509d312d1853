"""Hushed runs: operators go on hearing, nobody else does, and traces nest as they should."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.callbacks import (
    AsyncCallbackHandler,
    AsyncCallbackManager,
    BaseCallbackHandler,
    CallbackManager,
    StreamingStdOutCallbackHandler,
    UsageMetadataCallbackHandler,
    get_usage_metadata_callback,
)
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langchain_core.runnables.config import ensure_config, var_child_runnable_config
from langchain_core.tracers import ConsoleCallbackHandler, LangChainTracer
from langchain_core.tracers.event_stream import _AstreamEventsCallbackHandler
from langchain_core.tracers.log_stream import LogStreamCallbackHandler
from langchain_core.tracers.root_listeners import RootListenersTracer
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from langgraph.pregel._messages import StreamMessagesHandler, StreamMessagesHandlerV2

from langchain_safeguard.hushed import (
    aquietly,
    hushed,
    is_operators,
    muted,
    quiet,
    quietly,
    rebuilt,
)
from tests.chat_models import StreamingChatModel, Tally

LOUD: dict[str, Callable[[], BaseCallbackHandler]] = {
    "plain": BaseCallbackHandler,
    "async": AsyncCallbackHandler,
    "stdout": StreamingStdOutCallbackHandler,
    "usage": UsageMetadataCallbackHandler,
    "events": _AstreamEventsCallbackHandler,
    "log": LogStreamCallbackHandler,
    "langgraph": lambda: StreamMessagesHandler(lambda _: None, True),
    "langgraph protocol": lambda: StreamMessagesHandlerV2(lambda _: None, True),
    "listeners": lambda: RootListenersTracer(config={}, on_start=None, on_end=None, on_error=None),
}
QUIET: dict[str, Callable[[], BaseCallbackHandler]] = {
    "langsmith": lambda: LangChainTracer(client=object()),  # type: ignore[arg-type]
    "collector": RunCollectorCallbackHandler,
    "debug": ConsoleCallbackHandler,
}


class Heard(BaseCallbackHandler):
    """Notes the hooks that were called."""

    def __init__(self) -> None:
        self.hooks: list[str] = []

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        self.hooks.append("start")

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        self.hooks.append("token")

    def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        self.hooks.append("end")


@pytest.mark.parametrize("handler", LOUD.values(), ids=LOUD)
async def test_handlers_that_could_show_content_are_dropped(
    handler: Callable[[], BaseCallbackHandler],
) -> None:
    assert not is_operators(handler())


@pytest.mark.parametrize("handler", QUIET.values(), ids=QUIET)
def test_tracers_stay(handler: Callable[[], BaseCallbackHandler]) -> None:
    assert is_operators(handler())


@pytest.mark.parametrize("manager", [CallbackManager, AsyncCallbackManager])
def test_a_manager_keeps_its_run_tags_and_metadata(
    manager: type[CallbackManager] | type[AsyncCallbackManager],
) -> None:
    collector, loud, parent = RunCollectorCallbackHandler(), Heard(), uuid4()
    callbacks = manager(
        handlers=[loud, collector],
        inheritable_handlers=[collector, loud],
        parent_run_id=parent,
        tags=["a"],
        inheritable_tags=["b"],
        metadata={"c": 1},
        inheritable_metadata={"d": 2},
    )
    config = RunnableConfig(
        callbacks=callbacks,
        tags=["t"],
        metadata={"m": 1},
        configurable={"k": 1},
        run_name="outer",
        run_id=uuid4(),
    )
    quieter = hushed(config)
    kept = quieter["callbacks"]
    assert isinstance(kept, manager)
    assert kept.handlers == kept.inheritable_handlers == [collector]
    assert kept.parent_run_id == parent
    assert (kept.tags, kept.inheritable_tags) == (["a"], ["b"])
    assert (kept.metadata, kept.inheritable_metadata) == ({"c": 1}, {"d": 2})
    assert (quieter["tags"], quieter["metadata"]) == (["t"], {"m": 1})
    assert quieter["configurable"] == {"k": 1}
    assert "run_name" not in quieter and "run_id" not in quieter
    assert callbacks.handlers == [loud, collector], "the caller's manager is left alone"


def test_a_list_of_handlers_is_filtered() -> None:
    collector = RunCollectorCallbackHandler()
    assert hushed({"callbacks": [Heard(), collector]})["callbacks"] == [collector]


def test_callbacks_of_the_context_are_not_inherited() -> None:
    collector, loud = RunCollectorCallbackHandler(), Heard()
    token = var_child_runnable_config.set({"callbacks": [loud, collector], "tags": ["t"]})
    try:
        for config in (None, RunnableConfig(), RunnableConfig(callbacks=None)):
            assert hushed(config)["callbacks"] == [collector]
        assert hushed({"callbacks": []})["callbacks"] == []
        assert hushed()["tags"] == ["t"]
    finally:
        var_child_runnable_config.reset(token)


def test_a_step_that_hands_no_config_on_is_not_heard_either() -> None:
    loud = Heard()
    model = StreamingChatModel(script="one two")

    def forgetful(text: str) -> Any:
        return model.invoke(text)

    def outer(text: str) -> Any:
        config = hushed()
        with quiet(config):
            # Called as a plain function, so that LangChain sets no config for it.
            return forgetful(text)

    RunnableLambda(outer).invoke("hi", {"callbacks": [loud]})
    assert loud.hooks == []
    RunnableLambda(forgetful).invoke("hi", {"callbacks": [loud]})
    assert loud.hooks == ["start", "end"]


def test_handlers_of_context_managers_are_not_attached_inside() -> None:
    model = StreamingChatModel(script="one two", usage=True)
    with get_usage_metadata_callback() as counted:
        with quiet(hushed()):
            model.invoke("hi", hushed())
        assert counted.usage_metadata == {}
        model.invoke("hi")
        assert counted.usage_metadata["scripted-1"]["input_tokens"] == 5


def test_collected_runs_nest() -> None:
    collector = RunCollectorCallbackHandler()
    model = StreamingChatModel(script="one two")

    def outer(text: str, config: RunnableConfig) -> Any:
        quieter = hushed(config)
        with quiet(quieter):
            return model.invoke(text, quieter)

    RunnableLambda(outer).invoke("hi", {"callbacks": [collector, Heard()]})
    (run,) = collector.traced_runs
    assert [child.run_type for child in run.child_runs] == ["llm"]


def test_quiet_restores_the_context() -> None:
    token = var_child_runnable_config.set({"tags": ["outer"]})
    try:
        with pytest.raises(KeyError), quiet({"tags": ["inner"]}):
            assert ensure_config()["tags"] == ["inner"]
            raise KeyError
        assert ensure_config()["tags"] == ["outer"]
    finally:
        var_child_runnable_config.reset(token)


def test_between_the_steps_of_a_stream_the_context_is_the_consumers() -> None:
    inside: list[Any] = []

    def chunks() -> Iterator[int]:
        for number in range(2):
            inside.append(ensure_config()["tags"])
            yield number

    for _ in quietly(chunks(), {"tags": ["inner"]}):
        assert ensure_config()["tags"] == []
    assert inside == [["inner"], ["inner"]]


async def test_between_the_steps_of_an_async_stream_the_context_is_the_consumers() -> None:
    inside: list[Any] = []

    async def chunks() -> AsyncIterator[int]:
        for number in range(2):
            inside.append(ensure_config()["tags"])
            await asyncio.sleep(0)
            yield number

    async for _ in aquietly(chunks(), {"tags": ["inner"]}):
        assert ensure_config()["tags"] == []
    assert inside == [["inner"], ["inner"]]


def test_an_abandoned_stream_is_closed() -> None:
    tally = Tally()
    stream = quietly(StreamingChatModel(script="a b c", tally=tally).stream("hi"), {})
    next(stream)
    stream.close()
    assert tally.closed_early == 1


async def test_an_abandoned_async_stream_is_closed_from_any_context() -> None:
    tally = Tally()
    stream = aquietly(StreamingChatModel(script="a b c", tally=tally).astream("hi"), {})
    await anext(stream)
    await asyncio.create_task(stream.aclose(), context=contextvars.Context())
    await asyncio.sleep(0.01)
    assert tally.closed_early == 1


def test_a_graph_among_the_steps_is_cut_off_the_stream_around_it() -> None:
    config = hushed({"configurable": {"__pregel_stream": object(), "thread_id": "1"}})
    assert config["configurable"] == {"thread_id": "1"}


WRAPPED: dict[str, Callable[[StreamingChatModel], Runnable[Any, Any]]] = {
    "the model": lambda model: model,
    "a binding": lambda model: model.bind(stop=["x"]),
    "a configured one": lambda model: model.with_config(tags=["t"]),
    "retries": lambda model: model.with_retry(),
    "fallbacks": lambda model: model.with_fallbacks([model]),
    "a sequence": lambda model: RunnableLambda(str) | model | RunnableLambda(str),
    "a map": lambda model: RunnableLambda(str) | {"a": model},
    "a choice": lambda model: model.configurable_alternatives(_FIELD, other=model),
}


def _field() -> Any:
    from langchain_core.runnables import ConfigurableField

    return ConfigurableField(id="which")


_FIELD = _field()


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_handlers_attached_to_a_model_are_muted_wherever_it_is(
    wrap: Callable[[StreamingChatModel], Runnable[Any, Any]],
) -> None:
    loud, collector = Heard(), RunCollectorCallbackHandler()
    model = StreamingChatModel(script="one two", callbacks=[loud, collector])
    muted(wrap(model)).invoke("hi")
    assert loud.hooks == []
    assert len(collector.traced_runs) == 1
    wrap(model).invoke("hi")
    assert loud.hooks, "the original is left alone"


def test_handlers_and_listeners_attached_to_a_binding_are_muted() -> None:
    loud, runs = Heard(), []
    model = StreamingChatModel(script="one two")
    muted(model.with_config(callbacks=[loud])).invoke("hi")
    muted(model.with_listeners(on_end=lambda run: runs.append(run))).invoke("hi")
    assert loud.hooks == [] and runs == []


def test_what_needs_no_muting_is_not_copied() -> None:
    model = StreamingChatModel(script="x", callbacks=[RunCollectorCallbackHandler()])
    chain = RunnableLambda(str) | model.bind(stop=["x"]) | {"a": RunnableLambda(str)}
    assert muted(chain) is chain


def test_a_muted_copy_shares_what_the_model_holds() -> None:
    model = StreamingChatModel(script="x", callbacks=[Heard()])
    assert muted(model) is not model
    assert muted(model).tally is model.tally


def test_rebuilding_stops_where_it_is_told() -> None:
    seen: list[str] = []

    def note(part: Runnable[Any, Any]) -> Runnable[Any, Any]:
        seen.append(type(part).__name__)
        return part

    bound = StreamingChatModel(script="x").bind(stop=["x"])
    rebuilt(bound, note, until=(type(bound),))
    assert seen == [type(bound).__name__]
