"""Nothing that a guard withholds comes out of our own chains and models, on any channel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypedDict

import pytest
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough
from langgraph.graph import END, START, MessagesState, StateGraph

from langchain_safeguard import ContentBlockedError, InputGuard, OutputGuard, guard_model, guarded
from langchain_safeguard.testing import CHANNELS, LeakError, aassert_no_leak, assert_no_leak
from tests.chat_models import StreamingChatModel, WholeChatModel, call_chunks, reasoning_chunks
from tests.guarded_chains import POLICY, PROMPT, word_guard

SECRET = "hiddenword"
UNSAFE = "A harmless beginning that goes on for a good while before it turns. " * 3 + (
    f"Take a {SECRET} and build a bomb with it. And then some more words."
)
V3 = {"stream_events_v3", "astream_events_v3"}
"""Channels that only chat models and graphs have, as the kit says."""


def model(script: Any = UNSAFE) -> StreamingChatModel:
    return StreamingChatModel(script=script)


def opening(**options: Any) -> InputGuard:
    return InputGuard(word_guard(), POLICY, **options)


def closing(**options: Any) -> OutputGuard:
    return OutputGuard(word_guard(), POLICY, check_every=8, **options)


def _calls_the_model(value: Any) -> Any:
    return model().invoke(value)


CHAINS: dict[str, Callable[[], Runnable[Any, Any]]] = {
    "model": lambda: PROMPT | opening() | model() | closing(),
    "model that cannot stream": lambda: (
        PROMPT | opening() | WholeChatModel(script=UNSAFE) | closing()
    ),
    "prompt inside": lambda: opening() | PROMPT | model() | closing(),
    "parser inside": lambda: PROMPT | opening() | model() | StrOutputParser() | closing(),
    "parser behind": lambda: PROMPT | opening() | model() | closing() | StrOutputParser(),
    "output guard only": lambda: PROMPT | model() | closing(),
    "output guard only, in pairs": lambda: PROMPT | (model() | closing()),
    "a dict in front": lambda: (
        {"question": lambda value: value["question"]} | PROMPT | model() | closing()
    ),
    "a draft in front": lambda: (
        {"question": PROMPT | model() | StrOutputParser()}
        | PROMPT
        | model("A harmless answer to a bomb.")
        | closing()
    ),
    "a model inside a function": lambda: (
        PROMPT
        | RunnableLambda(_calls_the_model)
        | closing(refusal=lambda decision: AIMessage(decision.text))
    ),
    "parallel": lambda: PROMPT | opening(mode="parallel") | model() | closing(),
    "bound": lambda: PROMPT | opening() | model().bind(stop=["###"]).with_retry() | closing(),
    "tool calls": lambda: (
        PROMPT | opening() | model(call_chunks("build", f'{{"a": "bomb {SECRET}"}}')) | closing()
    ),
    "reasoning": lambda: PROMPT | opening() | model(reasoning_chunks(f"{SECRET} bomb")) | closing(),
    "guarded": lambda: guarded(PROMPT | model(), word_guard(), POLICY),
    "two guards": lambda: PROMPT | opening() | opening() | model() | closing() | closing(),
    "guarded inside a bigger chain": lambda: RunnablePassthrough.assign(
        answer=PROMPT | opening() | model() | closing() | StrOutputParser()
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_guarded_chains(name: str) -> None:
    report = assert_no_leak(
        CHAINS[name](), SECRET, input={"question": "bread?"}, expect="No.", allow_errors=False
    )
    assert set(report.skipped) <= V3
    assert set(report.channels) | set(report.skipped) >= set(CHANNELS) - V3


def test_chains_that_raise() -> None:
    chain = PROMPT | opening() | model() | closing(on_block="raise")
    assert_no_leak(chain, SECRET, input={"question": "bread?"}, expect=ContentBlockedError)


def test_a_guarded_model() -> None:
    report = assert_no_leak(
        guard_model(model(), word_guard(), POLICY), SECRET, input="bread?", expect="No."
    )
    assert not report.skipped


class State(TypedDict):
    """What the graph below remembers."""

    question: str
    answer: str


async def test_graphs_around_a_guarded_chain_and_a_guarded_model() -> None:
    chain = PROMPT | opening() | model() | closing()

    async def answer(state: State) -> dict[str, Any]:
        message = await chain.ainvoke({"question": state["question"]})
        return {"answer": message.text}

    graph: Any = StateGraph(State)
    graph.add_node("answer", RunnableLambda(_sync_answer(chain), answer))
    graph.add_edge(START, "answer")
    graph.add_edge("answer", END)
    await aassert_no_leak(
        graph.compile(), SECRET, input={"question": "bread?", "answer": ""}, expect="No."
    )

    llm = guard_model(model(), word_guard(), POLICY)
    talk: Any = StateGraph(MessagesState)
    talk.add_node("talk", RunnableLambda(lambda s: {"messages": [llm.invoke(s["messages"])]}))
    talk.add_edge(START, "talk")
    await aassert_no_leak(
        talk.compile(), SECRET, input={"messages": [HumanMessage("bread?")]}, expect="No."
    )


def _sync_answer(chain: Runnable[Any, Any]) -> Callable[[State], dict[str, Any]]:
    return lambda state: {"answer": chain.invoke({"question": state["question"]}).text}


def test_a_guarded_chain_as_a_node() -> None:
    graph: Any = StateGraph(MessagesState)
    chain = opening() | model() | closing()
    graph.add_node("talk", (lambda s: s["messages"]) | chain | (lambda m: {"messages": [m]}))
    graph.add_edge(START, "talk")
    assert_no_leak(
        graph.compile(), SECRET, input={"messages": [HumanMessage("bread?")]}, expect="No."
    )


def test_the_kit_catches_what_a_plain_check_behind_the_model_lets_out() -> None:
    def check(message: Any) -> AIMessage:
        return AIMessage("No.") if "bomb" in message.text else message

    with pytest.raises(LeakError) as caught:
        assert_no_leak(PROMPT | model() | check, SECRET, input={"question": "bread?"})
    assert "astream_events_v2" in str(caught.value)


def _parse(message: Any) -> dict[str, Any]:
    """Fail as parsers do, which put into their error what they could not parse."""
    raise OutputParserException(f"cannot parse {message.text!r}", llm_output=message.text)


@pytest.mark.parametrize("refusal", [None, lambda decision: {"refused": decision.text}])
@pytest.mark.parametrize("mode", ["sequential", "parallel"])
def test_errors_that_quote_the_answer(refusal: Any, mode: Any) -> None:
    chain = PROMPT | opening(mode=mode) | model() | _parse | closing(refusal=refusal)
    expected: Any = "No." if refusal else ContentBlockedError
    assert_no_leak(chain, SECRET, input={"question": "bread?"}, expect=expected)


MESSAGES: dict[str, list[Any]] = {
    "an earlier answer": [AIMessage(UNSAFE), HumanMessage("thanks"), AIMessage("Fine.")],
    "a tool's result": [ToolMessage(UNSAFE, tool_call_id="1"), AIMessage("Fine.")],
    "the last one is no answer": [AIMessage("Fine."), HumanMessage(UNSAFE)],
}


@pytest.mark.parametrize("messages", MESSAGES.values(), ids=MESSAGES)
@pytest.mark.parametrize("form", [lambda m: m, lambda m: {"messages": m}, lambda m: [{"m": m}]])
def test_all_messages_of_an_answer_are_judged(messages: list[Any], form: Any) -> None:
    chain = PROMPT | RunnableLambda(lambda _: form(messages)) | closing(refusal=lambda d: d.text)
    assert_no_leak(chain, SECRET, input={"question": "?"}, expect="No.", channels=["core"])


def test_what_a_graph_was_given_is_no_part_of_its_answer() -> None:
    graph = StateGraph(MessagesState)
    graph.add_node("model", lambda state: {"messages": [model("Fine.").invoke("?")]})
    graph.add_edge(START, "model")
    picture = {"type": "image", "url": "https://example.com/a.png"}
    asked = HumanMessage([{"type": "text", "text": "Is this a bomb?"}, picture])
    chain = guarded(graph.compile(), word_guard(), {"on_unchecked": "block"}, input=False)
    answer = chain.invoke({"messages": [asked]})
    assert [message.text for message in answer["messages"]] == ["Is this a bomb?", "Fine."]


def test_what_a_leading_step_made_is_judged_with_the_answer() -> None:
    def both(answer: AIMessage) -> list[AIMessage]:
        return [AIMessage(UNSAFE), answer]

    chain = PROMPT | model() | (lambda draft: [draft]) | model("Fine.") | both | closing()
    with pytest.raises(ContentBlockedError):
        chain.invoke({"question": "bread?"})


class Truncated(Exception):
    """What clients of models raise with the answer as far as it got."""

    def __init__(self, completion: AIMessage) -> None:
        super().__init__("the answer is too long")
        self.completion = completion

    def __str__(self) -> str:
        return "the answer is too long"


def _annotated() -> Exception:
    error = ValueError("failed")
    error.add_note(UNSAFE)
    return error


FAILURES: dict[str, Callable[[], Exception]] = {
    "message": lambda: ValueError(UNSAFE),
    "attribute": lambda: Truncated(AIMessage(UNSAFE)),
    "note": _annotated,
    "group": lambda: ExceptionGroup("two failed", [KeyError("x"), ValueError(UNSAFE)]),
}
FAILING: dict[str, Callable[[Any], Runnable[Any, Any]]] = {
    "chain": lambda model: PROMPT | opening() | model | closing(),
    "parallel chain": lambda model: PROMPT | opening(mode="parallel") | model | closing(),
    "chain with a parser": lambda model: PROMPT | opening() | model | StrOutputParser() | closing(),
    "model": lambda model: guard_model(model, word_guard(), POLICY),
    "parallel model": lambda model: guard_model(model, word_guard(), POLICY, mode="parallel"),
}


@pytest.mark.parametrize(
    ("name", "failure"),
    [*((name, "message") for name in FAILING), *(("model", failure) for failure in FAILURES)],
)
def test_errors_of_a_model_that_quote_its_answer(name: str, failure: str) -> None:
    chain = FAILING[name](model(["Fine so far. ", FAILURES[failure]()]))
    value: Any = "bread?" if "model" in name else {"question": "bread?"}
    assert_no_leak(chain, SECRET, input=value, expect="No.", channels=["core"])


@pytest.mark.parametrize("name", FAILING)
async def test_an_error_of_a_model_is_raised_if_what_it_says_passes(name: str) -> None:
    chain: Any = FAILING[name](model(["Fine so far. ", ConnectionError("gone away")]))
    value: Any = "bread?" if "model" in name else {"question": "bread?"}
    with pytest.raises(ConnectionError, match="gone away") as caught:
        chain.invoke(value)
    assert caught.value.__context__ is None
    with pytest.raises(ConnectionError, match="gone away"):
        await chain.ainvoke(value)
    with pytest.raises(ConnectionError, match="gone away"):
        [*chain.stream(value)]
    with pytest.raises(ConnectionError, match="gone away"):
        [chunk async for chunk in chain.astream(value)]


def test_an_error_of_a_model_is_blocked_and_cannot_be_rewritten() -> None:
    strict = guard_model(model([ValueError(UNSAFE)]), word_guard(), POLICY, on_block="raise")
    rewriting = guard_model(model([ValueError("call 0123")]), word_guard(), POLICY)
    for guarded_model in (strict, rewriting):
        for call in (guarded_model.invoke, lambda v: [*guarded_model.stream(v)]):  # noqa: B023
            with pytest.raises(ContentBlockedError) as caught:
                call("bread?")
            assert caught.value.__context__ is None


def test_errors_that_tell_nothing_unsafe_stay_as_they_are() -> None:
    chain = PROMPT | opening() | model("not JSON") | _parse | closing()
    for call in (chain.invoke, lambda value: [*chain.stream(value)], lambda v: chain.batch([v])):
        with pytest.raises(OutputParserException, match="not JSON"):
            call({"question": "bread?"})
