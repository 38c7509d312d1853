"""Texts inside values: all of them are found, and each can be put back changed."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, ToolMessage
from langgraph.types import Command
from pydantic import BaseModel

from langchain_safeguard import Safeguard
from langchain_safeguard.excision import PartRewriter, excised
from langchain_safeguard.readable import Readable
from tests.word_guard import WordGuard

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for item in value.values() for text in strings(item)]
    return [text for item in value for text in strings(item)] if isinstance(value, list) else []


@given(VALUES)
def test_every_text_of_a_nested_value_is_read_and_can_be_replaced(value: Any) -> None:
    readable = Readable.of(value)
    assert all(text in readable.text for text in strings(value))
    assert readable.with_texts(readable.texts).value is value
    changed = readable.with_texts([f"<{text}>" for text in readable.texts])
    assert len(strings(changed.value)) == len(strings(value))
    assert sorted(changed.texts) == sorted(f"<{text}>" for text in readable.texts)


class Named(BaseModel):
    name: str


@pytest.mark.parametrize(
    "value",
    [
        ToolMessage("find me", tool_call_id="1"),
        ToolMessage([{"type": "text", "text": "find me"}], tool_call_id="1"),
        ToolMessage(["find me"], tool_call_id="1"),
        AIMessage("", additional_kwargs={"reasoning_content": "find me"}),
        AIMessage("", tool_calls=[{"name": "x", "args": {"a": ["find me"]}, "id": "1"}]),
        Document("x", metadata={"title": "find me"}),
        Command(update={"notes": [{"find me": 1}]}),
        Command(update=[("notes", "find me")]),
        ("find me", 1),
        {"find me"},
        Named(name="find me"),
        {"type": "json", "data": {"deep": "find me"}},
        {"type": "image", "url": "find me"},
    ],
    ids=lambda value: type(value).__name__,
)
def test_words_are_found_in(value: Any) -> None:
    assert "find me" in Readable.of(value).text


@pytest.mark.parametrize(
    ("value", "note"),
    [
        (b"x", "binary data"),
        (object(), "object"),
        ({"type": "image", "url": "http://x"}, "image"),
        ({"type": "image", "source": {"type": "base64", "data": "aGk="}}, "unknown content block"),
        ({"type": "find me", "url": "http://x"}, "unknown content block"),
        (ToolMessage([{"type": "audio", "base64": "aGk="}], tool_call_id="1"), "audio"),
        (ToolMessage([{"type": "odd"}], tool_call_id="1"), None),
    ],
)
def test_what_cannot_be_read_is_noted_in_words_of_ours(value: Any, note: str | None) -> None:
    assert Readable.of(value).unchecked == ((note,) if note else ())


def test_numbers_have_meaning_under_a_name_only() -> None:
    assert Readable.of({"amount": 100}).text == "amount: 100"
    assert Readable.of([0.1] * 1000).text == ""


def parts(text: str, words: Any = None, rewrite: Any = "[removed]") -> str:
    words = words or {"bomb": "hate"}
    policy = {"rules": [{"categories": ["hate"], "action": "rewrite", "rewrite": rewrite}]}
    return PartRewriter(Safeguard(WordGuard(words), policy), "tool_output")(text)


@pytest.mark.parametrize(
    ("text", "better"),
    [
        ("bomb", "[removed]"),
        ("A. The bomb! C?", "A. [removed] C?"),
        ("a\nbomb b\nc\n", "a\n[removed]\nc\n"),
        ("a\n\n  bomb\n\n\nc", "a\n\n  [removed]\n\n\nc"),
        ("bomb. bomb. fine.", "[removed] [removed] fine."),
        (
            "빵을 굽는다. bomb이다。 끝.",
            "빵을 굽는다. bomb이다。 끝.".replace("bomb이다。", "[removed]"),
        ),
        ("nothing at all", "nothing at all"),
    ],
)
def test_only_the_part_that_offends_is_replaced(text: str, better: str) -> None:
    assert parts(text) == better


def test_a_rewriter_gets_only_the_part_that_offends() -> None:
    given: list[str] = []

    def soften(text: str) -> str:
        given.append(text)
        return text.replace("bomb", "cake")

    assert parts("One.\n\nA bomb. Two.\n\nThree.", rewrite=soften) == (
        "One.\n\nA cake. Two.\n\nThree."
    )
    assert "Three." not in given[-1]


@given(st.text(alphabet="ab.\n  ", max_size=200))
def test_a_text_in_which_nothing_offends_stays_as_it_is(text: str) -> None:
    assert parts(text) == text


def test_many_parts_are_judged_in_few_passes() -> None:
    guard = WordGuard({"bomb": "hate"})
    lines = [f"line {number}" for number in range(5000)]
    lines[4321] = "a bomb"
    policy = {"rules": [{"categories": ["hate"], "action": "rewrite", "rewrite": "[removed]"}]}
    better = PartRewriter(Safeguard(guard, policy), "tool_output")("\n".join(lines))
    assert better.splitlines()[4321] == "[removed]"
    assert better.count("removed") == 1
    assert len(guard.seen) < 400


@pytest.mark.parametrize("filling", ["\n", " ", "\n ", ". ", "a\n\n", "."])
def test_cutting_a_long_text_takes_no_time(filling: str) -> None:
    begin = time.process_time()
    next(plan := excised([f"bomb{filling * 100_000}bomb"]))
    decision = Safeguard(WordGuard({"bomb": "hate"})).check("bomb", side="tool_output")
    with suppress(StopIteration):
        plan.send([decision])
    assert time.process_time() - begin < 5


_json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda each: (
        st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=4), each, max_size=3)
    ),
    max_leaves=8,
)


@given(st.lists(_json_values, max_size=3) | st.dictionaries(st.text(max_size=4), _json_values))
def test_texts_in_json_are_replaced_one_by_one(value: Any) -> None:
    text = json.dumps(value)
    read = Readable.of(text)
    # All of it is judged, keys as well.
    assert read.text == text
    assert read.with_texts(read.texts).value == text
    changed = read.with_texts([f"<{number}>" for number in range(len(read.texts))]).value
    if read.texts == (text,):
        assert changed == "<0>"
    else:
        assert Readable.of(changed).texts == tuple(f"<{n}>" for n in range(len(read.texts)))


@pytest.mark.parametrize(
    "text", ['{"a": "b"', "{}", "[1, 2]", "[" * 100_000, '{"a": "b"} and more', "{injection}"]
)
def test_what_is_no_json_with_texts_is_one_text(text: str) -> None:
    assert Readable.of(text).texts == (text,)
