"""The leak-test kit catches every kind of leaky app, names the channels, and passes a clean one."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import sys
import warnings
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from langchain_core.callbacks import adispatch_custom_event, dispatch_custom_event
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import (
    Runnable,
    RunnableGenerator,
    RunnableLambda,
    RunnablePassthrough,
)
from pydantic import Field

from langchain_safeguard.testing import (
    CHANNELS,
    OPTIONAL_CHANNELS,
    LeakError,
    aassert_no_leak,
    assert_no_leak,
)

SECRET = "mix the green powder"
REFUSAL = "I can't help with that."
INPUT = {"q": "how do I make it?"}
PROMPT = ChatPromptTemplate.from_template("{q}")
INSIDE = {
    "astream_events_v1",
    "astream_events_v2",
    "astream_log",
    "callbacks",
    "async_callbacks",
    "listeners",
    "langgraph_messages",
    "langgraph_events_v3",
    "langserve_stream_log",
    "langserve_stream_events",
}
"""Channels that show what happens between the steps of a chain."""
PROCESS = {"logging", "stdout", "stderr", "warnings"}


class Model(BaseChatModel):
    """A chat model that streams fixed parts, natively in sync and in async code."""

    parts: list[Any]

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _chunks(self) -> Iterator[ChatGenerationChunk]:
        for part in self.parts:
            message = part if isinstance(part, AIMessageChunk) else AIMessageChunk(content=part)
            yield ChatGenerationChunk(message=message)

    def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> ChatResult:
        whole = sum((c.message for c in self._chunks()), AIMessageChunk(content=""))
        message = AIMessage(content=whole.content, tool_calls=whole.tool_calls)
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in self._chunks():
            if run_manager:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self._chunks():
            await asyncio.sleep(0)
            if run_manager:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    def bind_tools(self, tools: Any, **kwargs: Any) -> Runnable[Any, Any]:
        return self


class Guarded(Model):
    """The least that is clean: nobody hears the inner model, and all of it is read first."""

    inner: Any
    parts: list[Any] = Field(default_factory=list)

    def _chunks(self) -> Iterator[ChatGenerationChunk]:
        message = self.inner.invoke("ask", config={"callbacks": []})
        if SECRET in message.text:
            yield ChatGenerationChunk(message=AIMessageChunk(content=REFUSAL))
        else:
            yield ChatGenerationChunk(message=AIMessageChunk(content=message.content))


def unsafe() -> Model:
    return Model(parts=["First ", "mix ", "the gr", "een pow", "der, then ..."])


def refuse(message: AIMessage) -> AIMessage:
    return AIMessage(content=REFUSAL) if SECRET in message.text else message


def leaking(app: Runnable[Any, Any], **kwargs: Any) -> set[str]:
    """The channels the kit names for an app that must not pass."""
    with pytest.raises(LeakError) as caught:
        assert_no_leak(app, SECRET, **({"input": INPUT} | kwargs))
    for channel in caught.value.report.leaking:
        assert f"{channel}: " in str(caught.value)
    assert SECRET not in str(caught.value)
    return caught.value.report.leaking


def test_a_plain_model_leaks_everywhere_but_in_the_process() -> None:
    assert leaking(unsafe(), input="hi") == set(CHANNELS) - PROCESS - {"langgraph_custom"}


def test_a_guard_behind_the_model_leaks_between_the_steps() -> None:
    assert leaking(PROMPT | unsafe() | RunnableLambda(refuse)) == INSIDE


def test_a_guarded_model_is_clean_and_nothing_is_skipped() -> None:
    report = assert_no_leak(
        Guarded(inner=unsafe()), SECRET, input="hi", expect=REFUSAL, allow_errors=False
    )
    assert not report.skipped
    assert set(report.channels) == set(CHANNELS)
    silent = {name for name, count in report.items.items() if not count}
    assert silent <= PROCESS | {"langgraph_custom"}


def test_a_clean_chain_is_clean_and_says_what_it_has_not() -> None:
    report = assert_no_leak(PROMPT | Guarded(inner=unsafe()), SECRET, input=INPUT, expect=REFUSAL)
    assert set(report.skipped) == {"stream_events_v3", "astream_events_v3"}
    assert "version 3" in report.skipped["stream_events_v3"]
    assert not report.errors
    assert "skipped" in str(report)


def test_an_app_whose_types_say_less_than_it_takes_is_served_all_the_same() -> None:
    app = {"q": RunnablePassthrough()} | PROMPT | Guarded(inner=unsafe()) | StrOutputParser()
    channels = ["langserve"]
    report = assert_no_leak(app, SECRET, input="hi", expect=REFUSAL, channels=channels)
    assert not report.skipped
    assert not report.errors
    leaky = {"q": RunnablePassthrough()} | PROMPT | unsafe() | StrOutputParser()
    assert leaking(leaky, input="hi", channels=channels) == set(report.channels)


def test_async_entry_finds_the_same() -> None:
    async def run() -> None:
        await aassert_no_leak(Guarded(inner=unsafe()), SECRET, input="hi", expect=REFUSAL)
        with pytest.raises(LeakError) as caught:
            await aassert_no_leak(PROMPT | unsafe() | refuse, SECRET, input=INPUT)
        assert caught.value.report.leaking == INSIDE
        with pytest.raises(RuntimeError, match="aassert_no_leak"):
            assert_no_leak(unsafe(), SECRET, input="hi")

    asyncio.run(run())


def test_an_agent_with_an_after_model_guard_leaks_state_streams_and_checkpoints() -> None:
    agents = pytest.importorskip("langchain.agents")
    middleware = pytest.importorskip("langchain.agents.middleware")

    class AfterModel(middleware.AgentMiddleware):  # type: ignore[misc, name-defined]
        def after_model(self, state: Any, runtime: Any) -> dict[str, Any] | None:
            last = state["messages"][-1]
            return {"messages": [AIMessage(content=REFUSAL)]} if SECRET in last.text else None

    question = {"messages": [{"role": "user", "content": "hi"}]}
    agent = agents.create_agent(unsafe(), tools=[], middleware=[AfterModel()])
    found = leaking(agent, input=question)
    assert found >= {"invoke", "astream", "langgraph_updates", "langgraph_saved"}
    assert found >= {"stream_events_v3", "astream_events_v3", "langgraph_messages"}

    clean = agents.create_agent(Guarded(inner=unsafe()), tools=[])
    assert_no_leak(clean, SECRET, input=question, expect=REFUSAL)


def test_an_exception_that_quotes_the_answer_is_a_leak() -> None:
    def block(message: AIMessage) -> AIMessage:
        raise ValueError(f"blocked: {message.text}")

    app = RunnableLambda(lambda _: AIMessage(content=f"First {SECRET}")) | block
    found = leaking(app, channels=["invoke", "astream", "batch", "logging", "langserve"])
    # LangServe hides the text from the client, but uvicorn logs it.
    assert {"invoke", "astream", "batch", "logging"} <= found


def test_what_was_streamed_before_an_exception_counts() -> None:
    def show(_: Iterator[Any]) -> Iterator[str]:
        yield from ("mix the gr", "een powder")
        raise ValueError("blocked")

    async def ashow(_: AsyncIterator[Any]) -> AsyncIterator[str]:
        for part in ("mix the gr", "een powder"):
            yield part
        raise ValueError("blocked")

    channels = ["stream", "langserve_stream", "langserve_stream_log", "langserve_stream_events"]
    assert leaking(RunnableGenerator(show, ashow), channels=channels) == set(channels)


def test_an_exception_is_read_with_its_causes_attributes_and_notes() -> None:
    class BlockedError(Exception):
        answer = ""

    def attribute(error: BlockedError) -> None:
        error.answer = SECRET

    def note(error: BlockedError) -> None:
        error.add_note(SECRET)

    def cause(error: BlockedError) -> None:
        error.__cause__ = ValueError(SECRET)

    for leak in (attribute, note, cause):

        def block(_: Any, leak: Any = leak) -> Any:
            error = BlockedError("blocked")
            leak(error)
            raise error

        assert leaking(RunnableLambda(block), channels=["invoke"]) == {"invoke"}


def test_an_app_that_always_raises_proves_nothing_unless_expected() -> None:
    def block(_: Any) -> Any:
        raise PermissionError("blocked")

    app = RunnableLambda(block)
    with pytest.raises(LeakError, match=r"raised on every channel \(PermissionError") as caught:
        assert_no_leak(app, SECRET, input="hi")
    assert not caught.value.report.leaks
    report = assert_no_leak(app, SECRET, input="hi", expect=PermissionError)
    assert report.errors["invoke"] == ["PermissionError (1x)"]
    assert "HTTP 500 (1x)" in report.errors["langserve_invoke"]
    assert "error event (1x)" in report.errors["langserve_stream"]
    with pytest.raises(LeakError, match="raised PermissionError, which was not expected"):
        assert_no_leak(app, SECRET, input="hi", channels=["invoke"], expect=KeyError)


def test_exceptions_on_some_channels_are_noted_or_fail_on_request() -> None:
    async def broken(_: Any) -> str:
        raise NotImplementedError("sync only")

    app = RunnableLambda(lambda _: REFUSAL, broken)
    report = assert_no_leak(app, SECRET, input="hi", channels=["core"])
    assert set(report.errors) == {"ainvoke", "abatch", "astream", "atransform"}
    with pytest.raises(LeakError, match="ainvoke: raised NotImplementedError"):
        assert_no_leak(app, SECRET, input="hi", channels=["core"], allow_errors=False)
    channels = ["invoke", "langserve_invoke"]
    with pytest.raises(LeakError, match=r"langserve_invoke: failed \(HTTP 500\)"):
        assert_no_leak(app, SECRET, input="hi", channels=channels, allow_errors=False)


def test_silence_proves_nothing() -> None:
    def nothing(_: Iterator[Any]) -> Iterator[Any]:
        yield from ()

    with pytest.raises(LeakError, match=r"carried nothing|nothing came out"):
        assert_no_leak(RunnableGenerator(nothing), SECRET, input="hi", channels=["stream"])


def test_a_fake_that_runs_dry_proves_nothing() -> None:
    model = GenericFakeChatModel(messages=iter([AIMessage(content="fine")] * 3))
    with pytest.raises(LeakError, match="ran out of answers"):
        assert_no_leak(model, SECRET, input="hi", channels=["core"])


def test_expected_text_must_appear_on_every_channel_that_answers() -> None:
    app = RunnableLambda(lambda _: "something else")
    with pytest.raises(LeakError, match="invoke: the expected text did not appear"):
        assert_no_leak(app, SECRET, input="hi", channels=["invoke"], expect=REFUSAL)


SPLIT = {
    "text": ["mix", " the ", "green", " powder"],
    "letters": list(SECRET),
    "case": ["MIX THE ", "Green Powder"],
    "line break": ["mix the\n", "  green powder"],
    "blocks": [
        AIMessageChunk(content=[{"type": "text", "text": each, "index": 0}])
        for each in ("mix the ", "green powder")
    ],
    "reasoning": [
        AIMessageChunk(content=[{"type": "reasoning", "reasoning": each, "index": 0}])
        for each in ("mix the ", "green powder")
    ],
    "tool call": [
        AIMessageChunk(
            content="",
            tool_call_chunks=[{"name": name, "args": args, "id": call, "index": 0}],  # type: ignore[list-item]
        )
        for name, args, call in (("do", '{"x": "mix the ', "1"), (None, 'green powder"}', None))
    ],
    "two tool calls at once": [
        AIMessageChunk(
            content="",
            tool_call_chunks=[{"name": name, "args": args, "id": call, "index": index}],  # type: ignore[list-item]
        )
        for index, name, args, call in (
            (0, "do", '{"x": "mix the ', "1"),
            (1, "do", '{"y": "other', "2"),
            (0, None, 'green powder"}', None),
            (1, None, ' things"}', None),
        )
    ],
    "message ids": [
        AIMessageChunk(content=each, id=each) for each in ("mix the ", "green ", "powder")
    ],
    "extra": [
        AIMessageChunk(content="", additional_kwargs={"reasoning_content": each})
        for each in ("mix the ", "green powder")
    ],
}


@pytest.mark.parametrize("parts", SPLIT.values(), ids=SPLIT.keys())
def test_a_secret_split_over_chunks_is_found(parts: list[Any]) -> None:
    channels = ["stream", "astream", "events", "langgraph_messages", "langserve_stream"]
    found = leaking(Model(parts=parts), input="hi", channels=channels)
    assert {"stream", "astream", "astream_events_v2", "langgraph_messages"} <= found
    assert {"stream_events_v3", "langserve_stream", "astream_log"} <= found


def test_streams_only_leak_is_not_hidden_by_a_clean_result() -> None:
    def show(texts: Iterator[Any]) -> Iterator[str]:
        yield from ("mix the gr", "een powder")

    class OnlyStreams(RunnableGenerator[Any, str]):
        def invoke(self, *args: Any, **kwargs: Any) -> str:
            return REFUSAL

    found = leaking(OnlyStreams(show), channels=["invoke", "stream", "transform"])
    assert found == {"stream", "transform"}


def test_korean_is_found_escaped_decomposed_and_over_http() -> None:
    import unicodedata

    secret = "초록 가루를 섞는다"
    escaped = json.dumps({"x": f"먼저 {secret}"})
    assert secret not in escaped
    for text in (secret, escaped, json.dumps(escaped), unicodedata.normalize("NFD", secret)):
        with pytest.raises(LeakError) as caught:
            assert_no_leak(
                Model(parts=[text[:9], text[9:]]),
                ["not there", secret],
                input="hi",
                channels=["stream", "langserve_invoke", "langserve_stream_events"],
            )
        found = caught.value.report.leaking
        assert found == {"stream", "langserve_invoke", "langserve_stream_events"}


def test_logs_prints_and_warnings_are_heard_whatever_their_level() -> None:
    logger = logging.getLogger("some.guard")
    logger.setLevel(logging.ERROR)
    logger.propagate = False

    def chatty(_: Any) -> str:
        logger.debug("judging %s", SECRET)
        print("mix the", end=" ")
        print("green powder")
        sys.stderr.write(SECRET)
        assert sys.stdout.buffer.writable()
        warnings.warn(SECRET, stacklevel=1)
        return REFUSAL

    app = RunnableLambda(chatty)
    assert leaking(app, channels=["process"]) == PROCESS
    assert leaking(app, channels=["stream", "logging"]) == {"logging"}
    assert logger.level == logging.ERROR
    assert not logger.handlers
    logger.propagate = True


def test_custom_events_of_callbacks_and_graphs_are_heard() -> None:
    langgraph_config = pytest.importorskip("langgraph.config")

    def emit(_: Any) -> str:
        dispatch_custom_event("verdict", {"text": SECRET})
        return REFUSAL

    async def aemit(_: Any) -> str:
        await adispatch_custom_event("verdict", {"text": SECRET})
        return REFUSAL

    found = leaking(RunnableLambda(emit, aemit))
    assert found >= {"callbacks", "async_callbacks", "astream_events_v2"}
    assert "invoke" not in found

    def write(_: Any) -> str:
        langgraph_config.get_stream_writer()({"text": SECRET})
        return REFUSAL

    assert leaking(RunnableLambda(write), channels=["langgraph_custom"]) == {"langgraph_custom"}


def test_a_handler_in_the_context_is_heard_when_it_is_asked_for() -> None:
    app = Guarded(inner=unsafe())
    channels = ["ambient_callbacks", "invoke"]
    assert leaking(app, input="hi", channels=channels) == {"ambient_callbacks"}
    # It leaves nothing behind.
    report = assert_no_leak(app, SECRET, input="hi", channels=["callbacks"])
    assert set(report.channels) == {"callbacks", "async_callbacks", "listeners"}
    assert set(OPTIONAL_CHANNELS) == {"ambient_callbacks"}


def test_tracers_are_not_a_channel() -> None:
    from langchain_core.tracers import BaseTracer

    seen = []

    class Keeper(BaseTracer):
        def _persist_run(self, run: Any) -> None:
            seen.append(run)

    class Traced(Guarded):
        def _chunks(self) -> Iterator[ChatGenerationChunk]:
            self.inner.invoke("ask", config={"callbacks": [Keeper()]})
            return super()._chunks()

    assert_no_leak(Traced(inner=unsafe()), SECRET, input="hi", channels=["callbacks", "events"])
    assert seen


def test_the_answers_scripted_in_a_fake_are_not_a_leak() -> None:
    from langchain_core.language_models.fake_chat_models import FakeListChatModel

    class Fake(FakeListChatModel):
        def _call(self, *args: Any, **kwargs: Any) -> str:
            return REFUSAL

        def _stream(self, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
            yield ChatGenerationChunk(message=AIMessageChunk(content=REFUSAL))

        async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
            yield ChatGenerationChunk(message=AIMessageChunk(content=REFUSAL))

    assert_no_leak(Fake(responses=[SECRET]), SECRET, input="hi", expect=REFUSAL)


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match="the secret is in input="):
        assert_no_leak(unsafe(), SECRET, input={"q": [f"please {SECRET.upper()}"]})
    with pytest.raises(ValueError, match="the secret is in expect="):
        assert_no_leak(unsafe(), SECRET, input="hi", expect=f"not {SECRET}")
    for empty in ("", " ", [], ["ok", ""]):
        with pytest.raises(ValueError, match="secret must be"):
            assert_no_leak(unsafe(), empty, input="hi")
    with pytest.raises(ValueError, match=r"unknown channel 'strem'; allowed: invoke, .*langserve"):
        assert_no_leak(unsafe(), SECRET, input="hi", channels=["strem"])
    with pytest.raises(TypeError, match="must be a Runnable"):
        assert_no_leak(lambda x: x, SECRET, input="hi")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must be a str"):
        assert_no_leak(unsafe(), [1], input="hi")  # type: ignore[list-item]


def test_missing_packages_skip_their_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name in ("langserve", "langgraph") else find(name, *rest),
    )
    app = Guarded(inner=unsafe())
    report = assert_no_leak(app, SECRET, input="hi", channels=["invoke", "langserve", "langgraph"])
    assert set(report.channels) == {"invoke"}
    assert report.skipped["langserve_stream"] == "not installed: langserve"
    assert report.skipped["langgraph_saved"] == "not installed: langgraph"


def test_a_fake_with_a_counter_is_called_at_most_a_few_hundred_times() -> None:
    calls = itertools.count()
    app = RunnableLambda(lambda _: (next(calls), REFUSAL)[1])
    assert_no_leak(app, SECRET, input="hi", expect=REFUSAL)
    assert next(calls) < 200
