"""Guarded streams of any type: sync and async give the same, and nothing unchecked leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.runnables.utils import AddableDict

from langchain_safeguard import (
    ContentBlockedError,
    Conversation,
    Policy,
    Rule,
    Safeguard,
    UnreadableInputError,
)
from langchain_safeguard.streaming.guarded_stream import aguarded_stream, guarded_stream
from tests.chat_models import words
from tests.word_guard import WordGuard

REFUSAL = "I'm sorry, but I can't help with that."
LONG = "And then you take one more step along the road. " * 8
PROMPT = Conversation.of("hi")


class Source:
    """A stream that notes how far it was read and whether it was closed."""

    def __init__(self, chunks: Iterable[Any]) -> None:
        self.chunks = list(chunks)
        self.read = 0
        self.closed = False

    def __iter__(self) -> Iterator[Any]:
        try:
            for chunk in self.chunks:
                self.read += 1
                yield chunk
        finally:
            self.closed = True

    async def __aiter__(self) -> AsyncIterator[Any]:
        try:
            for chunk in self.chunks:
                await asyncio.sleep(0)
                self.read += 1
                yield chunk
        finally:
            self.closed = True


Run = Callable[..., list[Any]]


def _sync(source: Source, safeguard: Safeguard, **kwargs: Any) -> list[Any]:
    return [*guarded_stream(iter(source), PROMPT, safeguard, **kwargs)]


def _async(source: Source, safeguard: Safeguard, **kwargs: Any) -> list[Any]:
    async def run() -> list[Any]:
        stream = aguarded_stream(aiter(source), PROMPT, safeguard, **kwargs)
        return [chunk async for chunk in stream]

    return asyncio.run(run())


@pytest.fixture(params=[_sync, _async], ids=["sync", "async"])
def run(request: pytest.FixtureRequest) -> Run:
    chosen: Run = request.param
    return chosen


def test_texts_pass_as_they_are(run: Run) -> None:
    chunks = words(LONG)
    assert run(Source(chunks), Safeguard(WordGuard()), every=4) == chunks


def test_a_text_is_cut_off_before_what_is_unsafe(run: Run) -> None:
    source = Source(words(LONG + "the bomb. " + LONG))
    *shown, space, refusal = run(source, Safeguard(WordGuard()), every=8)
    assert (space, refusal) == ("\n\n", REFUSAL)
    assert LONG.startswith("".join(shown)) and len(shown) > 20
    assert source.closed and source.read < len(words(LONG)) + 12


def test_an_empty_stream_stays_empty(run: Run) -> None:
    assert run(Source([]), Safeguard(WordGuard())) == []


def test_an_empty_answer_passes(run: Run) -> None:
    assert run(Source(["", ""]), Safeguard(WordGuard())) == ["", ""]


def test_other_values_are_judged_as_a_whole(run: Run) -> None:
    guard = WordGuard()
    parts = [AddableDict(answer="one "), AddableDict(answer="two"), AddableDict(source="a book")]
    (whole,) = run(Source(parts), Safeguard(guard))
    assert whole == {"answer": "one two", "source": "a book"}
    assert guard.seen == [("output", "one two\na book")]


def test_values_that_grow_by_replacement_leave_as_the_last_of_them(run: Run) -> None:
    parts = [{"a": "the bomb"}, {"a": "the cake"}]
    assert run(Source(parts), Safeguard(WordGuard())) == [{"a": "the cake"}]


def test_a_block_of_other_values_raises(run: Run) -> None:
    with pytest.raises(ContentBlockedError):
        run(Source([{"a": "the bomb"}]), Safeguard(WordGuard()))


def test_a_refusal_can_be_made_for_other_values(run: Run) -> None:
    def refuse(decision: Any, like: Any) -> Any:
        return {"a": decision.text}

    source = Source([{"a": "the bomb"}])
    assert run(source, Safeguard(WordGuard()), refuse=refuse) == [{"a": REFUSAL}]


def test_whole_messages_stay_whole_messages(run: Run) -> None:
    message = AIMessage("all is well")
    assert run(Source([message]), Safeguard(WordGuard())) == [message]
    (refusal,) = run(Source([AIMessage("bomb", id="1")]), Safeguard(WordGuard()))
    assert type(refusal) is AIMessage
    assert (refusal.text, refusal.id) == (REFUSAL, "1")


def test_a_value_nobody_can_read_does_not_pass(run: Run) -> None:
    with pytest.raises(UnreadableInputError):
        run(Source([object()]), Safeguard(WordGuard()))


@pytest.mark.parametrize("intruder", [1, AIMessageChunk(content="x"), {"a": "b"}])
def test_a_stream_that_changes_its_type_does_not_pass(run: Run, intruder: Any) -> None:
    source = Source(["a ", intruder])
    with pytest.raises(UnreadableInputError, match="a stream of str went on with a"):
        run(source, Safeguard(WordGuard()))
    assert source.closed


def test_a_rewritten_text_goes_on_where_it_was(run: Run) -> None:
    policy = Policy(
        rules=(
            Rule(
                ["indiscriminate_weapons"],
                "rewrite",
                rewrite=lambda text: text.replace("bomb", "cake"),
            ),
        )
    )
    chunks = run(Source(words(LONG + "the bomb.")), Safeguard(WordGuard(), policy), every=4)
    assert "".join(chunks) == LONG + "the cake."
    assert len(chunks) > 10


def test_blocks_raise_when_asked_to(run: Run) -> None:
    source = Source(words(LONG + "the bomb. " + LONG))
    with pytest.raises(ContentBlockedError):
        run(source, Safeguard(WordGuard()), every=4, on_block="raise")
    assert source.closed


def test_tool_calls_in_any_form_wait_for_the_end() -> None:
    forms = [
        AIMessageChunk(content="", tool_calls=[{"name": "f", "args": {}, "id": "1"}]),
        AIMessageChunk(content=[{"type": "tool_use", "id": "1", "name": "f", "input": {}}]),
        AIMessageChunk(content=[{"type": "input_json_delta", "partial_json": "{"}]),
        AIMessageChunk(content="", additional_kwargs={"function_call": {"name": "f"}}),
    ]
    for form in forms:
        source = Source([form, *(AIMessageChunk(content=word) for word in words(LONG))])  # type: ignore[arg-type]
        stream = guarded_stream(iter(source), PROMPT, Safeguard(WordGuard()), every=4)
        assert next(stream) == form
        assert source.read == len(source.chunks)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text(alphabet="ab .가\n", max_size=9), max_size=30),
    st.integers(1, 10),
    st.booleans(),
    st.data(),
)
def test_shown_is_a_prefix_of_checked_and_the_whole_is_kept(
    chunks: list[str], every: int, unsafe: bool, data: Any
) -> None:
    if unsafe:
        chunks.insert(data.draw(st.integers(0, len(chunks))), "bomb")
    guard = WordGuard()
    source = Source(chunks)
    out: list[tuple[str, str]] = []
    for chunk in guarded_stream(iter(source), PROMPT, Safeguard(guard), every=every):
        out.append((chunk, guard.seen[-1][1]))
    if unsafe:
        assert out.pop()[0] == REFUSAL
        # A paragraph is put in front of the refusal when something was shown.
        assert not any(chunk for chunk, _ in out) or out.pop()[0] == "\n\n"
    shown = ""
    for chunk, checked in out:
        shown += chunk
        assert checked.startswith(shown)
    assert "bomb" not in shown
    assert shown == "".join(chunks) or unsafe
    assert source.closed or not chunks


def test_handing_in_the_users_own_messages_keeps_them() -> None:
    prompt = Conversation.of([HumanMessage("hi")])
    guard = WordGuard()
    [*guarded_stream(iter(["fine"]), prompt, Safeguard(guard))]
    assert guard.contexts[-1].turns[0] == prompt.turns[0]
