"""The parts of the leak kit that look at texts: finding, taking apart, joining."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage, AIMessageChunk

from langchain_safeguard.testing.matching import SecretFinder
from langchain_safeguard.testing.transcript import Transcript
from langchain_safeguard.testing.walking import leaves

TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(
    lambda text: unicodedata.normalize("NFKC", text).strip()
)
SECRET = 'mix "the"\n초록 가루 😀'


@given(TEXTS, st.text(max_size=20), st.text(max_size=20))
def test_a_secret_is_found_in_json_of_json(secret: str, before: str, after: str) -> None:
    # Words stand apart, or letters around the secret could melt into it (NFKC composes them).
    text = f"{before} {secret} {after}"
    finder = SecretFinder(secret)
    for _ in range(3):
        assert finder.found_in(text)
        text = json.dumps(text)
    assert finder.found_in(text)


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        SECRET.upper(),
        SECRET.replace(" ", "\t \n"),
        unicodedata.normalize("NFD", SECRET),
        json.dumps(SECRET),
        json.dumps(SECRET, ensure_ascii=False),
        repr(SECRET),
        ascii(SECRET),
        str({"text": SECRET}),
        json.dumps({"arguments": json.dumps({"x": SECRET})}),
    ],
)
def test_spellings_that_are_found(text: str) -> None:
    assert SecretFinder(["something else", SECRET]).found_in(f"so: {text}, then")


def test_other_texts_are_not_found() -> None:
    finder = SecretFinder("the bomb")
    assert not finder.found_in("the  bom b")
    assert not finder.found_in("thebomb")
    assert not finder.found_in("\\u12 \\x \\ud800 broken escapes \\U99999999")


def texts_of(value: Any) -> list[Any]:
    return [leaf.value for leaf in leaves(value)]


def test_everything_readable_is_taken_apart() -> None:
    @dataclass
    class Data:
        inner: Any

    class Thing:
        def __init__(self) -> None:
            self.hidden = "in an object"

    message = AIMessage(
        content=[{"type": "text", "text": "in a block"}, {"type": "reasoning", "reasoning": "why"}],
        additional_kwargs={"reasoning_content": "in extras"},
        response_metadata={"note": b"in bytes"},
        tool_calls=[{"name": "f", "args": {"in a key": 4711}, "id": "1"}],
    )
    found = texts_of({"a": Data([message, Thing()]), "b": {("t", 1): frozenset({"in a set"})}})
    for text in ("in a block", "why", "in extras", "in bytes", "in a key", 4711, "in an object"):
        assert text in found
    assert "in a set" in found


def test_a_value_that_holds_itself_ends() -> None:
    loop: dict[str, Any] = {"text": "here"}
    loop["again"] = [loop]
    assert "here" in texts_of(loop)
    deep: list[Any] = ["bottom"]
    for _ in range(5000):
        deep = [deep]
    assert texts_of(deep) == []


def test_models_are_configuration_not_output() -> None:
    assert texts_of({"model": FakeListChatModel(responses=["scripted"])}) == ["model"]


def leaks_of(*things: Any, secret: str = "one two three", run: bool = False) -> bool:
    transcript = Transcript("channel", SecretFinder(secret), None)
    with transcript.attempt("call") as see:
        for number, thing in enumerate(things):
            see("chunk", thing, run=str(number) if run else "")
    return bool(transcript.close().leaks)


@given(st.text("abc ", min_size=3, max_size=12).filter(str.strip), st.data())
def test_a_secret_cut_anywhere_is_found(secret: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(secret)), max_size=5)))
    parts = [secret[a:b] for a, b in zip([0, *cuts], [*cuts, len(secret)], strict=True)]
    assert leaks_of(*parts, secret=secret)
    assert leaks_of(*(AIMessageChunk(content=part) for part in parts), secret=secret)
    assert leaks_of(*parts, secret=secret, run=True)


def test_texts_of_different_places_are_not_joined() -> None:
    assert not leaks_of({"a": "one two"}, {"b": " three"})
    assert leaks_of({"a": "one two"}, {"b": "-"}, {"a": " three"})


def test_numbers_count_as_a_whole() -> None:
    assert leaks_of({"card": 4711}, secret="4711")
    assert not leaks_of({"tokens": 147110}, secret="4711")
