"""What LangChain passes around becomes roles and text; nothing is dropped silently."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.prompts import ChatPromptTemplate

from langchain_safeguard import Conversation, SafeguardError, Side, Turn, UnreadableInputError


@pytest.mark.parametrize(
    ("value", "side", "checked"),
    [
        ("hello", "input", Turn("user", "hello")),
        ("hello", "output", Turn("assistant", "hello")),
        ("send({})", "tool_input", Turn("assistant", "send({})")),
        ("a page", "tool_output", Turn("tool", "a page")),
        (HumanMessage("hello"), "input", Turn("user", "hello")),
        ([("system", "Be kind."), ("user", "hello")], "input", Turn("user", "hello")),
        ({"messages": [{"role": "user", "content": "hello"}]}, "input", Turn("user", "hello")),
        ({"role": "user", "content": "hello"}, "input", Turn("user", "hello")),
        ({"question": "a", "context": [Document("b")]}, "input", Turn("user", "a\nb")),
        (
            ChatPromptTemplate.from_template("{q}").invoke({"q": "hello"}),
            "input",
            Turn("user", "hello"),
        ),
        ([Document("a"), Document("b")], "tool_output", Turn("tool", "a\n\nb")),
        ([ToolMessage("result", tool_call_id="1")], "tool_output", Turn("tool", "result")),
    ],
)
def test_reads_what_langchain_passes_around(value: Any, side: Side, checked: Turn) -> None:
    assert Conversation.of(value, side).checked(side) == checked


def test_input_is_all_that_was_said_since_the_last_answer() -> None:
    conversation = Conversation.of(
        [("user", "old"), ("ai", "answer"), ("user", "one"), ("user", "two")]
    )
    assert conversation.checked("input").text == "one\n\ntwo"
    assert [turn.text for turn in conversation.context("input")] == ["old", "answer"]


def test_an_answer_that_the_caller_began_is_checked_with_the_input() -> None:
    conversation = Conversation.of([("user", "question"), ("ai", "Sure, here is")])
    assert conversation.checked("input").text == "question\n\nSure, here is"


def test_a_system_turn_is_checked_only_where_it_is_all_there_is() -> None:
    assert Conversation.of([("system", "topic")]).checked("input").text == "topic"


def test_an_answer_is_judged_with_what_led_to_it() -> None:
    conversation = Conversation.of([("user", "question")]).answered(AIMessage("answer"))
    assert conversation.checked("output") == Turn("assistant", "answer")
    assert conversation.context("output") == (Turn("user", "question"),)


def test_tool_calls_reasoning_and_odd_blocks_are_read_or_noted() -> None:
    message = AIMessage(
        content=[
            {"type": "reasoning", "reasoning": "thinking"},
            {"type": "thinking", "thinking": "more"},
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "short"}]},
            {"type": "text", "text": "said"},
            {"type": "image", "url": "https://example.com/a.png"},
            {"type": "audio", "base64": "AAAA"},
            {"type": "something_new", "payload": "coded", "bytes": "QUJD" * 100},
            {"type": "server_tool_call", "name": "look_up", "args": {"q": "wanted"}, "id": "2"},
            {"type": "text", "text": "", "index": 1},
        ],
        tool_calls=[{"name": "send", "args": {"to": "폭탄"}, "id": "1"}],
    )
    turn = Conversation.of(message, "output").checked("output")
    assert turn.text.splitlines() == [
        "thinking",
        "more",
        "short",
        "said",
        "coded",
        'look_up({"q": "wanted"})',
        'send({"to": "폭탄"})',
    ]
    assert turn.unchecked == ("image", "audio", "something_new")


@pytest.mark.parametrize(
    ("block", "text", "unchecked"),
    [
        ({"type": "tool_result", "tool_use_id": "toolu_1", "content": "words"}, "words", ()),
        ({"type": "tool_result", "content": [{"type": "text", "text": "words"}]}, "words", ()),
        (
            {
                "type": "search_result",
                "source": "https://a.b",
                "title": "words",
                "content": [{"type": "text", "text": "more"}],
            },
            "words\nmore",
            (),
        ),
        (
            {
                "type": "document",
                "source": {"type": "text", "media_type": "text/plain", "data": "some words"},
            },
            "some words",
            (),
        ),
        (
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
            },
            "",
            ("document",),
        ),
        ({"type": "json", "json": {"key": "words"}}, "key: words", ()),
        ({"type": "non_standard", "value": {"key": "words"}}, "key: words", ()),
        (
            {"type": "code_execution_tool_result", "content": {"stdout": "words"}},
            "stdout: words",
            (),
        ),
        (
            {
                "type": "tool_result",
                "content": [
                    {"type": "text", "text": "words"},
                    {"type": "image", "source": {"type": "base64", "data": "AAAA"}},
                ],
            },
            "words",
            ("tool_result",),
        ),
    ],
)
def test_words_inside_of_blocks_are_read(block: Any, text: str, unchecked: Any) -> None:
    turn = Conversation.of(HumanMessage([block])).checked("input")
    assert [line for line in turn.text.splitlines() if "https" not in line] == text.splitlines()
    assert turn.unchecked == unchecked


def test_an_answer_in_pieces_is_read_as_it_is_shown() -> None:
    pieces: Any = ["How to make a b", {"type": "text", "text": "om"}, {"type": "text", "text": "b"}]
    answer = AIMessage(pieces)
    assert Conversation.of(answer, "output").checked("output").text == answer.text
    # Who asks may mean paragraphs.
    assert Conversation.of(HumanMessage(["one", "two"])).checked("input").text == "one\ntwo"


@pytest.mark.parametrize(
    "beside",
    [
        {"reasoning_content": "thought"},
        {"reasoning": {"summary": [{"type": "summary_text", "text": "thought"}], "id": "rs_1"}},
        {"reasoning_details": [{"type": "reasoning.text", "text": "thought", "signature": "xx"}]},
        {"thinking": "thought"},
        {"refusal": "thought"},
        {"audio": {"id": "a", "data": "AAAA", "transcript": "thought"}},
    ],
)
def test_words_beside_the_content_are_read(beside: dict[str, Any]) -> None:
    message = AIMessage("said", additional_kwargs=beside)
    assert Conversation.of(message, "output").checked("output").text == "thought\nsaid"


def test_a_call_in_the_old_form_is_read() -> None:
    call = {"name": "send", "arguments": '{"to": "bob"}'}
    message = AIMessage("", additional_kwargs={"function_call": call})
    assert Conversation.of(message, "output").checked("output").text == 'send({"to": "bob"})'


def test_a_tool_call_that_is_still_streaming_is_read() -> None:
    call = {"name": "send", "args": '{"to": "bo', "id": "1", "index": 0}
    chunk = AIMessageChunk(content="", tool_call_chunks=[call])
    assert Conversation.of(chunk, "output").checked("output").text == 'send({"to": "bo)'


def test_a_tool_call_without_text_is_no_empty_turn() -> None:
    message = AIMessage("", tool_calls=[{"name": "f", "args": {}, "id": "1"}])
    assert Conversation.of(message, "output").checked("output").text == "f({})"


def test_an_unknown_role_is_the_least_trusted_one() -> None:
    assert Conversation.of([ChatMessage(role="narrator", content="hi")]).turns[0].role == "user"


def test_values_that_cannot_be_read_are_noted() -> None:
    turn = Conversation.of({"question": "a", "image": object()}).checked("input")
    assert turn == Turn("user", "a", ("image: object",))


@pytest.mark.parametrize("value", [3, b"bytes", None, object(), {1, 2}])
def test_other_types_are_an_error_that_names_the_type(value: object) -> None:
    with pytest.raises(UnreadableInputError, match=type(value).__name__):
        Conversation.of(value)


def test_an_unknown_role_word_is_an_error_without_the_text() -> None:
    with pytest.raises(UnreadableInputError) as caught:
        Conversation.of([("alien", "very secret words")])
    assert "allowed" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("value", "side"),
    [
        ([("user", "a")], "output"),
        ([], "input"),
        ([], "output"),
        ([("user", "a")], "tool_output"),
    ],
)
def test_a_conversation_must_end_with_the_side_that_is_judged(value: Any, side: Side) -> None:
    with pytest.raises(UnreadableInputError, match="ends with"):
        Conversation.of(value, side).checked(side)


_messages = st.lists(
    st.one_of(
        st.builds(HumanMessage, st.text()),
        st.builds(AIMessage, st.text()),
        st.builds(SystemMessage, st.text()),
    ),
    min_size=1,
)


@given(_messages)
def test_input_context_and_checked_part_share_every_turn(messages: list[BaseMessage]) -> None:
    conversation = Conversation.of(messages)
    checked = conversation.checked("input").text
    before = conversation.context("input")
    after = conversation.turns[len(before) :]
    assert (*before, *after) == conversation.turns
    assert after
    assert all(turn.text in checked for turn in after if turn.role == "user")
    assert not before or before[-1].role == "assistant"


@given(st.recursive(st.none() | st.text() | st.integers() | st.binary(), st.lists, max_leaves=5))
def test_anything_else_is_read_or_is_an_error_of_ours(value: object) -> None:
    try:
        Conversation.of(value).checked("input")
    except SafeguardError as error:
        assert str(error)


@given(st.text(), st.text(), st.integers(0, 50))
def test_a_preamble_is_left_out_of_the_body_and_nothing_else_is(
    preamble: str, text: str, cut: int
) -> None:
    turn = Turn("assistant", preamble + text, preamble=preamble)
    conversation = Conversation((Turn("user", "hi"), turn))
    assert conversation.checked("tool_input").body == text
    assert conversation.replaced("tool_input", preamble + "x").checked("tool_input").body == "x"
    # A stretch of it, or a text in its place, that does not begin so, is all body.
    other = (preamble + text)[cut:]
    body = conversation.replaced("tool_input", other).checked("tool_input").body
    assert body == (other.removeprefix(preamble))
    assert other.endswith(body)
