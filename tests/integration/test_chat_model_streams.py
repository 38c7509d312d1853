"""Streams of a guarded chat model: what leaves when, what is closed, what runs side by side."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk, BaseMessageChunk

from langchain_safeguard import (
    ContentBlockedError,
    GuardedChatModel,
    Policy,
    Resolution,
    Rule,
    Safeguard,
    guard_model,
)
from tests.chat_models import StreamingChatModel, call_chunks, reasoning_chunks, words
from tests.word_guard import FaultyGuard, WordGuard

LONG = "And then you take one more step along the road. " * 12
REFUSAL = "I'm sorry, but I can't help with that."

Run = Callable[[GuardedChatModel, Any], list[AIMessageChunk]]


def _stream(model: GuardedChatModel, value: Any) -> list[AIMessageChunk]:
    return [*model.stream(value)]


def _astream(model: GuardedChatModel, value: Any) -> list[AIMessageChunk]:
    async def run() -> list[AIMessageChunk]:
        return [chunk async for chunk in model.astream(value)]

    return asyncio.run(run())


@pytest.fixture(params=[_stream, _astream], ids=["sync", "async"])
def stream(request: pytest.FixtureRequest) -> Run:
    run: Run = request.param
    return run


@pytest.fixture(params=["sequential", "parallel"])
def mode(request: pytest.FixtureRequest) -> Any:
    return request.param


def guarded(model: Any, **kwargs: Any) -> GuardedChatModel:
    return guard_model(model, **({"guard": WordGuard(), "check_every": 8} | kwargs))


def test_the_model_generates_nothing_after_a_block(stream: Run, mode: Any) -> None:
    # In parallel mode the model also speaks while its input is checked: here, that is over soon.
    model = StreamingChatModel(script="One two three. " * 4 + "The bomb. " + LONG, pause=0.01)
    chunks = stream(guarded(model, mode=mode), "hi")
    assert chunks[-1].text == REFUSAL
    assert chunks[-1].response_metadata["safeguard"]["action"] == "block"
    assert model.tally.closed_early == 1
    # The word is the 14th; a window is 8 tokens.
    assert model.tally.chunks <= 14 + 8


def test_what_was_out_before_a_block_had_passed(stream: Run) -> None:
    chunks = stream(guarded(StreamingChatModel(script=LONG + "The bomb. " + LONG)), "hi")
    shown = "".join(chunk.text for chunk in chunks[:-2])
    assert len(shown) > 200
    assert LONG.startswith(shown)
    assert [chunk.text for chunk in chunks[-2:]] == ["\n\n", REFUSAL]
    assert chunks[-1].chunk_position == "last"


def test_the_first_chunk_is_out_before_the_answer_is_complete() -> None:
    model = StreamingChatModel(script=LONG)
    answer = guarded(model).stream("hi")
    assert next(answer).text == "And"
    assert model.tally.chunks <= 10
    answer.close()  # type: ignore[attr-defined]


def test_a_safe_stream_has_the_models_chunks_in_their_order(stream: Run, mode: Any) -> None:
    parts = [*reasoning_chunks("Let me think about it. "), *words(LONG)]
    parts += call_chunks("search", '{"query": "one more step"}')
    chunks = stream(guarded(StreamingChatModel(script=parts, usage=True), mode=mode), "hi")
    plain = [*StreamingChatModel(script=parts, usage=True).stream("hi")]
    bare = {"id": None}
    assert [c.model_copy(update=bare) for c in chunks] == [c.model_copy(update=bare) for c in plain]
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_whole_of_a_safe_stream_is_what_invoke_returns(stream: Run) -> None:
    app = guarded(StreamingChatModel(script=[*words(LONG), *call_chunks("f", '{"a": 1}')]))
    chunks = stream(app, "hi")
    whole: Any = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk
    message = app.invoke("hi")
    assert isinstance(whole, BaseMessageChunk)
    assert (whole.content, whole.tool_calls) == (message.content, message.tool_calls)


def test_tool_calls_leave_after_the_last_check() -> None:
    guard = WordGuard()
    parts = [*words(LONG), *call_chunks("f", '{"a": "bc"}'), *words(LONG)]
    model = StreamingChatModel(script=parts)
    seen: list[int] = []
    for chunk in guarded(model, guard=guard).stream("hi"):
        if chunk.tool_call_chunks:
            seen.append(len(guard.seen))
    assert set(seen) == {len(guard.seen)}
    assert "bc" in guard.seen[-1][1]


def test_a_blocked_tool_call_never_leaves(stream: Run) -> None:
    parts = [*words("I do it. "), *call_chunks("run", '{"command": "a bomb, a long one"}')]
    chunks = stream(guarded(StreamingChatModel(script=parts)), "hi")
    assert not any(chunk.tool_call_chunks or chunk.tool_calls for chunk in chunks)
    assert chunks[-1].text == REFUSAL


def test_one_decision_makes_one_record(stream: Run) -> None:
    records: list[Any] = []
    guard = WordGuard()
    safeguard = Safeguard(guard, audit=records.append)
    stream(guard_model(StreamingChatModel(script=LONG), safeguard=safeguard, check_every=8), "hi")
    assert len(guard.seen) > 5
    assert [(r["side"], r["action"]) for r in records] == [("input", "allow"), ("output", "allow")]
    records.clear()
    blocked = StreamingChatModel(script=LONG + "bomb. " + LONG)
    guard.seen.clear()
    stream(guard_model(blocked, safeguard=safeguard, check_every=8), "hi")
    assert [(r["side"], r["action"]) for r in records] == [("input", "allow"), ("output", "block")]
    # The window that stopped the stream was judged once, though it was also recorded.
    assert len(guard.seen) == len(set(guard.seen))


def test_a_flag_in_the_middle_is_recorded_on_the_last_chunk(stream: Run) -> None:
    model = StreamingChatModel(script=LONG + "bomb. " + LONG)
    chunks = stream(guarded(model, policy=Policy(default="flag")), "hi")  # type: ignore[arg-type]
    assert "".join(chunk.text for chunk in chunks) == LONG + "bomb. " + LONG
    marked = [chunk for chunk in chunks if "safeguard" in chunk.response_metadata]
    assert len(marked) == 1
    assert not any(chunk.text for chunk in chunks[chunks.index(marked[0]) + 1 :])


@pytest.mark.parametrize("answer", ["allow", "block", None])
def test_an_escalation_in_the_middle_is_settled_at_the_end(stream: Run, answer: Any) -> None:
    asked: list[str] = []

    def reviewer(request: Any) -> Any:
        asked.append(request.text)
        return answer

    script = LONG + "bomb. " + LONG
    safeguard = Safeguard(WordGuard(), Policy(default="escalate"), handlers=[reviewer])  # type: ignore[arg-type]
    app = guard_model(StreamingChatModel(script=script), safeguard=safeguard, check_every=8)
    text = "".join(chunk.text for chunk in stream(app, "hi"))
    assert asked == [script.rstrip()] or asked == [script]
    if answer == "allow":
        assert text == script
    else:
        assert text.endswith(REFUSAL) and "bomb" not in text


def test_a_new_text_that_contradicts_what_is_out_comes_too_late(stream: Run) -> None:
    safeguard = Safeguard(
        WordGuard(),
        Policy(default="escalate"),  # type: ignore[arg-type]
        handlers=[lambda request: Resolution("rewrite", "Something else.")],  # type: ignore[arg-type]
    )
    model = StreamingChatModel(script=LONG + "bomb. ")
    app = guard_model(model, safeguard=safeguard, check_every=8)
    text = "".join(chunk.text for chunk in stream(app, "hi"))
    assert LONG.startswith(text.removesuffix(REFUSAL).removesuffix("\n\n"))
    assert text.endswith(REFUSAL)
    assert app.invoke("hi").text == "Something else."


def test_a_rewriting_rule_rewrites_a_stream_whose_beginning_is_out(stream: Run) -> None:
    def soften(text: str) -> str:
        return text.replace("bomb", "cake")

    policy = Policy(rules=(Rule(["indiscriminate_weapons"], "rewrite", rewrite=soften),))
    app = guarded(StreamingChatModel(script=LONG + "the bomb is done."), policy=policy)
    chunks = stream(app, "hi")
    assert "".join(chunk.text for chunk in chunks) == LONG + "the cake is done."
    assert len(chunks) > 5


def test_nothing_unchecked_is_out_when_the_model_fails_in_the_middle(mode: Any) -> None:
    guard = WordGuard()
    model = StreamingChatModel(script=[*words(LONG), ConnectionError("gone"), *words(LONG)])
    shown = ""
    with pytest.raises(ConnectionError):
        for chunk in guarded(model, guard=guard, mode=mode).stream("hi"):
            shown += chunk.text
    checked = [text for side, text in guard.seen if side == "output"]
    assert shown and checked[-1].startswith(shown)


def test_a_guard_that_fails_in_the_middle_closes(stream: Run) -> None:
    calls: list[int] = []

    def fault() -> Any:
        from langchain_safeguard import Verdict

        calls.append(1)
        if len(calls) > 2:
            raise RuntimeError
        return [Verdict("x", score=0.0)]

    model = StreamingChatModel(script=LONG)
    app = guarded(model, guard=FaultyGuard(fault, "output"))
    chunks = stream(app, "hi")
    assert chunks[-1].text == REFUSAL
    assert chunks[-1].response_metadata["safeguard"]["failed"]
    assert model.tally.closed_early == 1


def test_a_block_raised_in_the_middle_closes_the_model() -> None:
    model = StreamingChatModel(script=LONG + "bomb. " + LONG)
    shown = []
    with pytest.raises(ContentBlockedError):
        for chunk in guarded(model, on_block="raise").stream("hi"):
            shown.append(chunk)
    assert shown and model.tally.closed_early == 1


def test_a_consumer_that_leaves_closes_the_model(mode: Any) -> None:
    model = StreamingChatModel(script=LONG, pause=0.002)
    answer = guarded(model, mode=mode).stream("hi")
    next(answer)
    answer.close()  # type: ignore[attr-defined]
    assert model.tally.closed_early == 1


async def test_an_async_consumer_that_leaves_closes_the_model(mode: Any) -> None:
    model = StreamingChatModel(script=LONG, pause=0.002)
    answer = guarded(model, mode=mode).astream("hi")
    await anext(answer)
    await answer.aclose()  # type: ignore[attr-defined]
    await _until(lambda: model.tally.closed_early == 1)


async def test_a_cancelled_consumer_closes_the_model(mode: Any) -> None:
    model = StreamingChatModel(script=LONG, pause=0.02)
    app = guarded(model, mode=mode)
    for call in (app.ainvoke, lambda text: _consume(app.astream(text))):
        model.tally.closed_early = 0
        model.delay = 0.5
        task = asyncio.ensure_future(call("hi"))  # type: ignore[arg-type]
        await _until(lambda: model.tally.calls > 0)
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await _until(lambda: model.tally.closed_early == 1)
        model.tally.calls = 0


async def _consume(chunks: AsyncIterator[Any]) -> None:
    async for _ in chunks:
        pass


async def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


def _timed(call: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


@pytest.mark.parametrize("call", ["invoke", "ainvoke", "stream", "astream"])
def test_only_in_parallel_the_model_does_not_wait_for_the_check(call: str, mode: Any) -> None:
    model = StreamingChatModel(script="Fine.")
    calls_during_check: list[int] = []

    class Patient(WordGuard):
        def check(self, conversations: Any, side: Any) -> Any:
            if side == "input":
                deadline = time.monotonic() + (30 if mode == "parallel" else 0.1)
                while not model.tally.calls and time.monotonic() < deadline:
                    time.sleep(0.005)
                calls_during_check.append(model.tally.calls)
            return super().check(conversations, side)

    app = guarded(model, guard=Patient(), mode=mode)
    if call == "invoke":
        app.invoke("hi")
    elif call == "ainvoke":
        asyncio.run(app.ainvoke("hi"))
    else:
        (_stream if call == "stream" else _astream)(app, "hi")
    assert calls_during_check == [1 if mode == "parallel" else 0]


async def test_in_parallel_a_block_cancels_the_call() -> None:
    for call in (lambda app: app.ainvoke("a bomb"), lambda app: _consume(app.astream("a bomb"))):
        model = StreamingChatModel(script="Fine.", delay=20)
        app = guarded(model, guard=WordGuard(delay=0.05), mode="parallel")
        begin = time.perf_counter()
        await call(app)
        assert time.perf_counter() - begin < 15
        assert (model.tally.calls, model.tally.chunks) == (1, 0)
        await _until(lambda model=model: model.tally.closed_early == 1)  # type: ignore[misc]


def test_in_parallel_a_block_stops_a_sync_stream_and_drops_a_sync_call() -> None:
    model = StreamingChatModel(script=LONG, pause=0.01)
    app = guarded(model, guard=WordGuard(delay=0.05), mode="parallel")
    chunks = _stream(app, "a bomb")
    assert [chunk.text for chunk in chunks] == [REFUSAL]
    assert model.tally.closed_early == 1
    slow = StreamingChatModel(script="Fine.", delay=3)
    app = guarded(slow, mode="parallel")
    assert _timed(lambda: app.invoke("a bomb")) < 2.5


def test_in_parallel_nothing_is_out_before_the_verdict() -> None:
    model = StreamingChatModel(script=LONG, pause=0.005)
    guard = WordGuard(delay=0.1)
    for _ in guarded(model, guard=guard, mode="parallel").stream("hi"):
        assert guard.seen[0] == ("input", "hi")
    assert model.tally.calls == 1


async def test_the_loop_is_never_blocked() -> None:
    app = guarded(StreamingChatModel(script="One two three. " * 4), guard=WordGuard(delay=1))
    longest, last = 0.0, time.perf_counter()
    task = asyncio.ensure_future(_consume(app.astream("hi")))
    while not task.done():
        await asyncio.sleep(0.001)
        longest, last = max(longest, time.perf_counter() - last), time.perf_counter()
    # A guard that ran on the loop would hold it for all of its second.
    assert longest < 0.8


async def test_abandoned_async_streams_leave_nothing_behind() -> None:
    model = StreamingChatModel(script=LONG)
    app = guarded(model)

    async def leave() -> None:
        async for _ in app.astream("hi"):
            break

    await asyncio.gather(*(leave() for _ in range(20)))
    await _until(lambda: model.tally.closed_early == 20)
