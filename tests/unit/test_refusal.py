"""Refusals and rewritten messages hold nothing of what they replace."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from langchain_safeguard import Action, ContentBlockedError, Decision
from langchain_safeguard.refusal import (
    recorded,
    refusal_chunk,
    refusal_message,
    refused,
    rewritten_input,
    with_text,
)

USAGE: Any = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}


def decision(action: str, text: str = "No.") -> Decision:
    return Decision(Action.of(action), text, "output", (), 0.9, ("hate",), "default", "id")


def message(kind: type[AIMessage], **kwargs: Any) -> AIMessage:
    return kind(
        content=[{"type": "text", "text": "secret"}, {"type": "reasoning", "reasoning": "secret"}],
        tool_calls=[{"name": "f", "args": {"a": "secret"}, "id": "1"}],
        additional_kwargs={"reasoning_content": "secret"},
        response_metadata={"logprobs": ["secret"], "model_name": "m", "message": "secret"},
        usage_metadata=USAGE,
        id="message-1",
        name="helper",
        **kwargs,
    )


@pytest.mark.parametrize("kind", [AIMessage, AIMessageChunk])
def test_a_refusal_keeps_who_and_how_much_but_nothing_of_what(kind: type[AIMessage]) -> None:
    blocked = decision("block")
    for refusal in (
        refusal_message(blocked, message(kind)),
        refusal_chunk(blocked, message(kind)),
        refused(blocked, message(kind)),
        with_text(message(kind), blocked),
    ):
        assert "secret" not in repr(refusal)
        assert refusal.text == "No."
        assert (refusal.id, refusal.name, refusal.usage_metadata) == ("message-1", "helper", USAGE)
        assert refusal.response_metadata == {"model_name": "m", "safeguard": blocked.summary()}
        assert refusal.tool_calls == []


def test_refusals_are_of_the_type_of_what_they_replace() -> None:
    blocked = decision("block")
    assert refused(blocked, "text") == "No."
    assert type(refused(blocked, AIMessage("x"))) is AIMessage
    chunk = refused(blocked, AIMessageChunk(content="x"))
    assert type(chunk) is AIMessageChunk
    assert chunk.chunk_position == "last"
    assert refusal_message(blocked).text == refusal_chunk(blocked).text == "No."


@pytest.mark.parametrize("value", [None, 3, {"a": "b"}, ["x"]])
def test_where_no_refusal_can_be_made_the_block_is_raised(value: Any) -> None:
    with pytest.raises(ContentBlockedError):
        refused(decision("block"), value)


def test_the_record_is_put_on_a_copy_and_only_when_flagged() -> None:
    original = message(AIMessage)
    assert recorded(original, decision("allow")) is original
    flagged = recorded(original, decision("flag"))
    assert flagged.response_metadata["safeguard"]["action"] == "flag"
    assert "safeguard" not in original.response_metadata
    assert flagged.tool_calls == original.tool_calls


def test_the_counts_of_a_cached_message_may_be_incomplete() -> None:
    cached = AIMessage("x").model_copy(update={"usage_metadata": {"total_cost": 0}})
    assert refusal_message(decision("block"), cached).usage_metadata == {"total_cost": 0}


def said(messages: list[BaseMessage]) -> list[tuple[str, Any]]:
    return [(m.type, m.content) for m in messages]


def test_a_rewritten_input_replaces_all_that_was_judged() -> None:
    call: Any = {"name": "f", "args": {}, "id": "1"}
    messages = [
        SystemMessage("rules"),
        HumanMessage("old"),
        AIMessage("", tool_calls=[call]),
        ToolMessage("result", tool_call_id="1"),
        SystemMessage("more rules"),
        HumanMessage("one"),
        HumanMessage("two", id="2"),
    ]
    new = rewritten_input(messages, decision("rewrite", "better"))
    assert said(new) == [
        ("system", "rules"),
        ("human", "old"),
        ("ai", ""),
        ("tool", ""),
        ("system", "more rules"),
        ("human", "better"),
    ]
    assert new[-1].id == "2"
    assert said(messages)[-1] == ("human", "two")


def test_a_rewritten_input_keeps_its_pictures() -> None:
    picture = {"type": "image", "url": "u"}
    messages = [
        HumanMessage([{"type": "text", "text": "a"}, picture, {"type": "text", "text": "b"}])
    ]
    (new,) = rewritten_input(messages, decision("rewrite", "c"))
    assert new.content == [{"type": "text", "text": "c"}, picture]


def test_a_rewritten_input_keeps_no_block_that_was_judged() -> None:
    picture = {"type": "image", "url": "u"}
    judged = [
        {"type": "text", "text": "a"},
        {"type": "tool_result", "tool_use_id": "1", "content": "b"},
        {"type": "document", "source": {"type": "text", "data": "c d"}},
        {"type": "tool_use", "id": "1", "name": "f", "input": {"x": "e"}},
    ]
    (new,) = rewritten_input([HumanMessage([*judged, picture])], decision("rewrite", "c"))
    assert new.content == [{"type": "text", "text": "c"}, picture]


def test_an_answer_the_caller_began_is_judged_and_rewritten_with_the_input() -> None:
    messages = [HumanMessage("one"), AIMessage("two")]
    assert said(rewritten_input(messages, decision("rewrite", "better"))) == [("human", "better")]
    alone = [AIMessage("two")]
    assert said(rewritten_input(alone, decision("rewrite", "better"))) == [("ai", "better")]
    rules = [SystemMessage("two")]
    assert said(rewritten_input(rules, decision("rewrite", "better"))) == [("system", "better")]
