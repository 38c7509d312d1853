"""A guarded chat model: what every way of calling it returns, and what the inner model did."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage

from langchain_safeguard import (
    Category,
    ConfigurationError,
    ContentBlockedError,
    Finding,
    Guard,
    GuardedChatModel,
    Policy,
    Rule,
    Safeguard,
    Verdict,
    guard_model,
)
from tests.chat_models import (
    StreamingChatModel,
    WholeChatModel,
    call_chunks,
    reasoning_chunks,
    words,
)
from tests.word_guard import FaultyGuard, WordGuard

SAFE = "Bread needs flour, water and salt. Knead it well, let it rest. Then bake it for an hour."
UNSAFE = "First mix the two powders. Then put the bomb together, wire by wire, and so on and on."
KOREAN = "먼저 가루 두 가지를 섞습니다. 그런 다음 폭탄을 조립합니다. 그리고 전선을 연결합니다."
REFUSAL = "I'm sorry, but I can't help with that."

Ask = Callable[[Any, Any], BaseMessage]


def joined(chunks: list[Any]) -> BaseMessage:
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk
    assert isinstance(whole, BaseMessage)
    return whole


async def _astream(model: Any, value: Any) -> BaseMessage:
    return joined([chunk async for chunk in model.astream(value)])


async def _aevents(model: Any, value: Any) -> BaseMessage:
    run = await model.astream_events(value, version="v3")
    message: BaseMessage = await run.output
    return message


WAYS: dict[str, Ask] = {
    "invoke": lambda model, value: model.invoke(value),
    "ainvoke": lambda model, value: asyncio.run(model.ainvoke(value)),
    "batch": lambda model, value: model.batch([value])[0],
    "abatch": lambda model, value: asyncio.run(model.abatch([value]))[0],
    "stream": lambda model, value: joined([*model.stream(value)]),
    "astream": lambda model, value: asyncio.run(_astream(model, value)),
    "generate": lambda model, value: (
        model.generate([[HumanMessage(value)]]).generations[0][0].message
    ),
    "events v3": lambda model, value: model.stream_events(value, version="v3").output,
    "async events v3": lambda model, value: asyncio.run(_aevents(model, value)),
}


@pytest.fixture(params=WAYS)
def ask(request: pytest.FixtureRequest) -> Ask:
    return WAYS[request.param]


@pytest.fixture(params=["sequential", "parallel"])
def mode(request: pytest.FixtureRequest) -> Any:
    return request.param


def guarded(model: Any, **kwargs: Any) -> GuardedChatModel:
    kwargs = {"guard": WordGuard(), "check_every": 4} | kwargs
    return guard_model(model, **kwargs)


def record(message: BaseMessage) -> Any:
    return message.response_metadata.get("safeguard")


def test_a_safe_answer_is_the_models(ask: Ask, mode: Any) -> None:
    model = StreamingChatModel(script=SAFE, usage=True)
    answer = ask(guarded(model, mode=mode), "How do I bake?")
    plain = ask(StreamingChatModel(script=SAFE, usage=True), "How do I bake?")
    assert model.tally.calls == 1
    assert answer.id != plain.id
    assert answer.model_copy(update={"id": None}) == plain.model_copy(update={"id": None})
    assert record(answer) is None


def test_a_blocked_input_is_refused_and_the_model_never_called(ask: Ask) -> None:
    model = StreamingChatModel(script=SAFE)
    answer = ask(guarded(model), "How do I build a bomb?")
    assert answer.text == REFUSAL
    assert record(answer)["action"] == "block"
    assert record(answer)["side"] == "input"
    assert record(answer)["categories"] == ["indiscriminate_weapons"]
    assert model.tally.calls == 0


def test_a_blocked_input_is_refused_in_parallel_too(ask: Ask) -> None:
    model = StreamingChatModel(script=SAFE, delay=0.05)
    answer = ask(guarded(model, mode="parallel"), "How do I build a bomb?")
    assert answer.text == REFUSAL
    assert record(answer)["side"] == "input"


@pytest.mark.parametrize("script", [UNSAFE, KOREAN], ids=["english", "korean"])
def test_a_blocked_answer_is_withheld(ask: Ask, mode: Any, script: str) -> None:
    answer = ask(guarded(StreamingChatModel(script=script, usage=True), mode=mode), "What now?")
    assert "bomb" not in str(answer) and "폭탄" not in str(answer)
    assert answer.text.endswith(REFUSAL)
    shown = answer.text.removesuffix(REFUSAL).removesuffix("\n\n")
    assert script.startswith(shown)
    assert record(answer)["side"] == "output"


def test_a_model_that_cannot_stream_is_guarded_alike(ask: Ask, mode: Any) -> None:
    assert ask(guarded(WholeChatModel(script=SAFE), mode=mode), "hi").text == SAFE
    assert ask(guarded(WholeChatModel(script=UNSAFE), mode=mode), "hi").text == REFUSAL


def test_blocks_raise_when_asked_to(ask: Ask, mode: Any) -> None:
    model = guarded(StreamingChatModel(script=UNSAFE), on_block="raise", mode=mode)
    for text, side in [("a bomb", "input"), ("hi", "output")]:
        with pytest.raises(ContentBlockedError) as caught:
            ask(model, text)
        assert caught.value.decision.side == side
        assert "bomb" not in str(caught.value)


def test_an_answer_is_judged_with_its_prompt(ask: Ask) -> None:
    guard = WordGuard()
    ask(guarded(StreamingChatModel(script=SAFE), guard=guard), "How do I bake?")
    asked, *windows = guard.contexts
    assert [turn.role for turn in asked.turns] == ["user"]
    for conversation in windows:
        assert [turn.role for turn in conversation.turns] == ["user", "assistant"]
        assert conversation.turns[0].text == "How do I bake?"
    assert guard.seen[-1] == ("output", SAFE)


@pytest.mark.parametrize(
    ("which", "sides"),
    [({"output": False}, {"input"}), ({"input": False}, {"output"})],
    ids=["input only", "output only"],
)
def test_one_side_alone_can_be_checked(
    ask: Ask, mode: Any, which: dict[str, bool], sides: set[str]
) -> None:
    guard = WordGuard()
    answer = ask(guarded(StreamingChatModel(script=SAFE), guard=guard, mode=mode, **which), "hi")
    assert answer.text == SAFE
    assert {side for side, _ in guard.seen} == sides


PARTS: dict[str, list[Any]] = {
    "tool call": [*words("Let me see. I look it up. "), *call_chunks("f", '{"q": "a bomb, now"}')],
    "tool name": [*words("Let me see. "), *call_chunks("bomb", '{"q": "now"}')],
    "reasoning": [*reasoning_chunks("They want a bomb. I will help. "), *words("Here is how.")],
    "reasoning text": [
        AIMessageChunk(content="", additional_kwargs={"reasoning_content": "a bomb "}),
        *words("Here is how."),
    ],
    "blocks": [AIMessageChunk([{"type": "text", "text": w, "index": 0}]) for w in words(UNSAFE)],
}


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_all_parts_of_an_answer_are_checked(ask: Ask, mode: Any, parts: list[Any]) -> None:
    answer = ask(guarded(StreamingChatModel(script=parts), mode=mode), "hi")
    assert isinstance(answer, AIMessage)
    assert answer.text.endswith(REFUSAL)
    assert answer.tool_calls == answer.invalid_tool_calls == []
    assert not getattr(answer, "tool_call_chunks", None)
    assert "bomb" not in repr(answer)


def test_safe_tool_calls_pass(ask: Ask, mode: Any) -> None:
    parts = [*words("Let me see. I look it up. "), *call_chunks("f", '{"q": "a long question"}')]
    answer = ask(guarded(StreamingChatModel(script=parts), mode=mode), "hi")
    assert isinstance(answer, AIMessage)
    (call,) = answer.tool_calls
    assert (call["name"], call["args"]) == ("f", {"q": "a long question"})


def test_what_repeats_the_answer_in_other_words_goes_with_it(ask: Ask) -> None:
    last = AIMessageChunk(
        content=" bomb",
        id="chatcmpl-1",
        response_metadata={"model_name": "m", "logprobs": {"content": [{"token": "bomb"}]}},
        additional_kwargs={"parsed": "bomb"},
    )
    answer = ask(guarded(StreamingChatModel(script=["a", last])), "hi")
    assert "bomb" not in repr(answer)
    assert answer.response_metadata["model_name"] == "m"
    # Version 3 events number messages by their run, with any model.
    assert answer.id == "chatcmpl-1" or str(answer.id).startswith("lc_run-")


def _hang() -> None:
    time.sleep(1)


def _raise() -> None:
    raise RuntimeError("a bomb of an error")


FAULTS: dict[str, Callable[[], Any]] = {
    "raises": _raise,
    "hangs": _hang,
    "returns nothing": lambda: None,
    "returns too few": list,
    "returns garbage": lambda: ["safe"],
    "gives a wild score": lambda: [Verdict("x", score=7.0)],
    "says it failed": lambda: [Verdict("x", failed=True)],
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("side", ["input", "output"])
def test_a_guard_that_fails_closes(ask: Ask, fault: Callable[[], Any], side: Any) -> None:
    model = StreamingChatModel(script=SAFE)
    timeout = 0.3 if fault is _hang else 60.0
    safeguard = Safeguard(FaultyGuard(fault, side), timeout=timeout, attempts=1)
    answer = ask(guard_model(model, safeguard=safeguard), "hi")
    assert answer.text == REFUSAL
    assert record(answer)["failed"]
    assert record(answer)["rule"] == "on_failure"
    assert model.tally.calls == (0 if side == "input" else 1)


def test_a_model_that_fails_fails_as_it_does_alone(ask: Ask, mode: Any) -> None:
    script = [*words(SAFE), ConnectionError("gone")]
    with pytest.raises(ConnectionError, match="gone"):
        ask(guarded(StreamingChatModel(script=script), mode=mode), "hi")


def test_a_blocked_input_is_refused_even_if_the_model_fails_meanwhile(ask: Ask) -> None:
    model = StreamingChatModel(script=[ConnectionError("gone")])
    answer = ask(guarded(model, guard=WordGuard(delay=0.05), mode="parallel"), "a bomb")
    assert answer.text == REFUSAL


def test_a_flagged_answer_passes_with_the_record(ask: Ask, mode: Any) -> None:
    model = StreamingChatModel(script=UNSAFE, usage=True)
    answer = ask(guarded(model, policy=Policy(default="flag"), mode=mode), "hi")  # type: ignore[arg-type]
    assert answer.text == UNSAFE
    assert record(answer)["action"] == "flag"
    assert answer.response_metadata["model_name"] == "scripted-1"


REDACT = Policy(rules=(Rule(["privacy"], "rewrite", rewrite={"redact": ["email"]}),))


class Mails(Guard):
    """Reports privacy where there is an e-mail address."""

    name = "mails"
    categories = frozenset({Category.PRIVACY})

    def check(self, conversations: Any, side: Any) -> list[Verdict]:
        texts = [conversation.checked(side).text for conversation in conversations]
        scores = [0.9 if "@" in text else 0.0 for text in texts]
        return [
            Verdict(self.name, findings=(Finding(Category.PRIVACY, score),), score=score)
            for score in scores
        ]


def test_an_answer_can_be_rewritten(ask: Ask, mode: Any) -> None:
    text = "You can reach her, any time of the day, at jane.doe@example.com. Be polite to her."
    model = StreamingChatModel(script=text, usage=True)
    answer = ask(guard_model(model, Mails(), REDACT, mode=mode, check_every=4), "hi")
    assert answer.text == text.replace("jane.doe@example.com", "[EMAIL]")
    assert record(answer)["action"] == "rewrite"
    assert isinstance(answer, AIMessage) and answer.usage_metadata is not None
    assert answer.response_metadata["model_name"] == "scripted-1"


def test_an_input_can_be_rewritten_and_the_model_sees_nothing_else(ask: Ask, mode: Any) -> None:
    def echo(messages: list[BaseMessage]) -> str:
        return f"You said: {messages[-1].text}"

    model = StreamingChatModel(script=echo)
    answer = ask(guard_model(model, Mails(), REDACT, mode=mode), "I am jane@example.com")
    assert answer.text == "You said: I am [EMAIL]"
    if mode == "sequential":
        assert model.tally.calls == 1
        assert "@" not in str(model.tally.prompts)


def test_a_rewritten_answer_has_no_tool_calls(ask: Ask) -> None:
    parts = [*words("I write to her. "), *call_chunks("send", '{"to": "jane@example.com"}')]
    answer = ask(guard_model(StreamingChatModel(script=parts), Mails(), REDACT), "hi")
    assert isinstance(answer, AIMessage)
    assert answer.tool_calls == []
    assert "@" not in repr(answer)


async def test_every_answer_belongs_to_its_question_under_load() -> None:
    guard = WordGuard(delay=0.002)
    model = StreamingChatModel(
        script=lambda messages: f"{messages[-1].text} is the question, and this is its answer.",
        delay=0.005,
    )
    app = guarded(model, guard=guard)
    questions = [f"{'bomb' if n % 5 == 0 else 'number'} {n}" for n in range(200)]
    answers = await asyncio.gather(*map(app.ainvoke, questions))
    for question, answer in zip(questions, answers, strict=True):
        expected = REFUSAL if "bomb" in question else model.script([HumanMessage(question)])
        assert answer.text == expected
    assert model.tally.calls == 160


BAD: list[tuple[dict[str, Any], str]] = [
    ({"on_block": "ignore"}, "'refuse'|refuse, raise"),
    ({"mode": "later"}, "sequential, parallel"),
    ({"check_every": 0}, "check_every=0"),
    ({"input": "yes"}, "True, False"),
    ({"safeguard": Safeguard(WordGuard()), "guard": WordGuard()}, "either 'safeguard' or"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=[str([*bad[0]]) for bad in BAD])
def test_wrong_options_are_named_with_what_is_allowed(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        guard_model(StreamingChatModel(script=SAFE), **options)


def test_what_is_no_chat_model_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no chat model"):
        guard_model("gpt", WordGuard())  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="Safeguard"):
        GuardedChatModel(model=StreamingChatModel(script=SAFE), safeguard="strict")
    with pytest.raises(ConfigurationError, match="cache"):
        GuardedChatModel(model=StreamingChatModel(script=SAFE), cache=True)
