"""People decide by interrupting a run: what they saw is released, and nothing runs twice."""

from __future__ import annotations

import asyncio
import importlib
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    HumanInTheLoopMiddleware,
    ModelFallbackMiddleware,
    ModelRetryMiddleware,
)
from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage, HumanMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, interrupt
from pydantic import BaseModel

from langchain_safeguard import (
    ConfigurationError,
    ContentBlockedError,
    Conversation,
    Escalation,
    HeldDatabase,
    HeldResults,
    HumanReview,
    InputGuard,
    MissingExtraError,
    OutputGuard,
    Resolution,
    Safeguard,
    guard_model,
    guard_tool,
)
from langchain_safeguard.holding.error_words import words_of
from langchain_safeguard.holding.held import Held, Outcome
from langchain_safeguard.holding.waiting import HELD_MESSAGE, LOST_MESSAGE
from langchain_safeguard.middleware import SafeguardMiddleware, ToolGuardMiddleware
from langchain_safeguard.testing import assert_no_leak
from langchain_safeguard.verdict import Span
from tests.agents import HI, REFUSAL, SECRET, UNSAFE, WAYS, calling, contents, notebook
from tests.chat_models import StreamingChatModel, call_chunks, words
from tests.word_guard import WordGuard

ROOT = Path(__file__).parents[2]
ASYNC = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


def person(escalation: Escalation) -> Any:
    """Ask somebody, and do what they say."""
    answer = interrupt({"side": escalation.side, "about": escalation.decision.categories})
    if isinstance(answer, dict):
        return Resolution("rewrite", answer["edit"])  # type: ignore[arg-type]
    return answer


def people(words: Any = None, **options: Any) -> Safeguard:
    """Make a decision path that asks a person about each listed word."""
    rule = {"categories": ["indiscriminate_weapons", "hate"], "action": "escalate"}
    guard = WordGuard(words) if words else WordGuard()
    return Safeguard(guard, {"rules": [rule]}, **{"handlers": [person], **options})


def agent(script: Any, tools: Any = (), around: Any = None, **options: Any) -> Any:
    """Make an agent whose answers people decide about."""
    model = script if isinstance(script, StreamingChatModel) else StreamingChatModel(script=script)
    guarded = [SafeguardMiddleware(safeguard=people(), check_every=4)]
    settings = {"checkpointer": InMemorySaver(), **options}
    around = guarded if around is None else around
    return create_agent(model, [*tools], middleware=around, **settings)


def thread(name: str = "1") -> Any:
    return {"configurable": {"thread_id": name}}


@pytest.fixture(params=WAYS, ids=WAYS)
def run(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Run an agent in one of the ways there are, and return its last state."""
    way = WAYS[request.param]

    def go(agent: Any, value: Any, config: Any = None) -> Any:
        way(agent, value, config or thread())
        return agent.get_state(config or thread())

    return go


def ran(state: Any) -> list[tuple[str, str]]:
    return contents(state.values)


def asked(state: Any) -> list[Any]:
    return [each.value for each in state.interrupts]


# --- answers of agents ---


@pytest.mark.parametrize(
    ("answer", "said"),
    [("allow", UNSAFE), ("block", REFUSAL), ({"edit": "Bake bread."}, "Bake bread.")],
    ids=["approve", "reject", "edit"],
)
def test_the_answer_a_person_saw_is_the_one_released(run: Any, answer: Any, said: str) -> None:
    model = StreamingChatModel(script=UNSAFE)
    built = agent(model)
    state = run(built, HI)
    assert ran(state) == [("human", "hi")]
    assert asked(state)[0]["side"] == "output"
    state = run(built, Command(resume=answer))
    assert ran(state) == [("human", "hi"), ("ai", said)]
    assert not state.next
    assert model.tally.calls == 1


def test_an_approved_tool_call_is_made_once(run: Any) -> None:
    note, written = notebook()
    model = StreamingChatModel(script=calling("a bomb"))
    built = agent(model, [note])
    assert asked(run(built, HI)) and not written
    state = run(built, Command(resume="allow"))
    assert ran(state)[-2:] == [("tool", "noted a bomb"), ("ai", "Done.")]
    assert written == ["a bomb"]
    assert model.tally.calls == 2


def test_a_rejected_tool_call_is_not_made(run: Any) -> None:
    note, written = notebook()
    built = agent(calling("a bomb"), [note])
    run(built, HI)
    state = run(built, Command(resume="block"))
    assert ran(state)[-1] == ("ai", REFUSAL)
    assert not state.values["messages"][-1].tool_calls and not written


@pytest.mark.parametrize("answer", ["approve!", 7, {"edit": None}, {"x": 1}, ["allow"]])
def test_nothing_passes_on_nonsense(run: Any, answer: Any) -> None:
    built = agent(UNSAFE)
    run(built, HI)
    assert ran(run(built, Command(resume=answer)))[-1] == ("ai", REFUSAL)


def test_resuming_twice_changes_nothing() -> None:
    model = StreamingChatModel(script=UNSAFE)
    built = agent(model)
    built.invoke(HI, thread())
    for answer in ("block", "allow"):
        built.invoke(Command(resume=answer), thread())
    assert contents(built.get_state(thread()).values)[-1] == ("ai", REFUSAL)
    assert model.tally.calls == 1


def test_going_on_without_an_answer_asks_again() -> None:
    model = StreamingChatModel(script=UNSAFE)
    built = agent(model)
    first = built.invoke(HI, thread())["__interrupt__"]
    again = built.invoke(None, thread())["__interrupt__"]
    assert first == again
    state = built.invoke(Command(resume={again[0].id: "allow"}), thread())
    assert contents(state)[-1] == ("ai", UNSAFE)
    assert model.tally.calls == 1


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_it_does_not_matter_when_langgraph_saves(durability: Any) -> None:
    model = StreamingChatModel(script=UNSAFE)
    built = agent(model)
    built.invoke(HI, thread(), durability=durability)
    state = built.invoke(Command(resume="allow"), thread(), durability=durability)
    assert contents(state)[-1] == ("ai", UNSAFE)
    assert model.tally.calls == 1


def test_a_checkpoint_can_be_gone_on_from_by_its_id() -> None:
    model = StreamingChatModel(script=UNSAFE)
    built = agent(model)
    built.invoke(HI, thread())
    place = built.get_state(thread()).config
    # LangGraph keeps the first answer to a question.
    for answer in ("block", "allow"):
        state = built.invoke(Command(resume=answer), place)
        assert contents(state)[-1] == ("ai", REFUSAL)
    assert model.tally.calls == 1


@pytest.mark.parametrize("mode", ["values", "updates", "messages", "custom", "debug", "tasks"])
def test_every_mode_of_the_stream_shows_it_only_once_it_is_approved(mode: Any) -> None:
    built = agent(UNSAFE)
    before, after = (
        repr([*built.stream(value, thread(), stream_mode=mode, subgraphs=True)])
        for value in (HI, Command(resume="allow"))
    )
    assert SECRET not in before
    assert (SECRET in after) == (mode != "custom")


def test_the_stream_of_tokens_says_that_it_waits_and_then_the_answer() -> None:
    built = agent(UNSAFE)

    def heard(value: Any) -> str:
        parts = built.stream(value, thread(), stream_mode="messages")
        return "".join(message.text for message, _ in parts if message.type != "human")

    assert heard(HI).endswith(HELD_MESSAGE)
    assert heard(Command(resume="allow")) == UNSAFE


def test_tokens_are_counted_once() -> None:
    model = StreamingChatModel(script=UNSAFE, usage=True)
    built = agent(model)
    first = [*built.stream(HI, thread(), stream_mode="messages")]
    assert not any(getattr(message, "usage_metadata", None) for message, _ in first)
    state = built.invoke(Command(resume="allow"), thread())
    assert state["messages"][-1].usage_metadata["output_tokens"] == len(words(UNSAFE))


class Answer(BaseModel):
    """A structured answer."""

    text: str


@pytest.mark.parametrize("native", [True, False], ids=["native", "by tool"])
def test_an_approved_structured_answer_is_parsed(run: Any, native: bool) -> None:
    script: Any = f'{{"text": "{UNSAFE}"}}'
    profile: Any = {"structured_output": native}
    model = StreamingChatModel(
        script=script if native else call_chunks("Answer", script), profile=profile
    )
    built = agent(model, response_format=Answer)
    assert asked(run(built, HI))
    state = run(built, Command(resume="allow"))
    assert state.values["structured_response"] == Answer(text=UNSAFE)
    assert model.tally.calls == 1


def test_a_block_that_raises_does_so_when_a_person_rejects(run: Any) -> None:
    guard = SafeguardMiddleware(safeguard=people(), check_every=4, on_block="raise")
    built = agent(UNSAFE, around=[guard])
    assert asked(run(built, HI))
    with pytest.raises(ContentBlockedError):
        run(built, Command(resume="block"))


def test_the_record_of_each_decision_is_kept_in_order() -> None:
    records: list[Any] = []
    guard = SafeguardMiddleware(safeguard=people(audit=records.append), input=False)
    built = agent(UNSAFE, around=[guard])
    built.invoke(HI, thread())
    assert [(r["action"], r["pending"]) for r in records] == [("escalate", True)]
    built.invoke(Command(resume="allow"), thread())
    assert (records[-1]["action"], records[-1]["pending"]) == ("allow", False)
    assert records[-1]["resolved_by"] == "person"
    assert len({record["decision_id"] for record in records}) == 1


def test_the_guard_is_not_asked_again_about_what_a_person_saw(run: Any) -> None:
    safeguard = people()
    guard: Any = safeguard.guards[0]
    built = agent(UNSAFE, around=[SafeguardMiddleware(safeguard=safeguard, input=False)])
    run(built, HI)
    before = len(guard.seen)
    guard.words = {}
    state = run(built, Command(resume="block"))
    assert ran(state)[-1] == ("ai", REFUSAL)
    assert len(guard.seen) == before


# --- beside others ---


@pytest.mark.parametrize("first", [True, False], ids=["guard first", "guard last"])
def test_people_who_approve_tools_are_asked_after_the_answer_is_released(
    run: Any, first: bool
) -> None:
    note, written = notebook()
    human = HumanInTheLoopMiddleware(interrupt_on={"note": True})
    guard = SafeguardMiddleware(safeguard=people())
    around = [guard, human] if first else [human, guard]
    built = agent(calling("a bomb"), [note], around=around)
    assert asked(run(built, HI))[0]["side"] == "output"
    state = run(built, Command(resume="allow"))
    assert asked(state)[0]["action_requests"][0]["args"] == {"text": "a bomb"}
    assert not written
    state = run(built, Command(resume={"decisions": [{"type": "approve"}]}))
    assert ran(state)[-1] == ("ai", "Done.")
    assert written == ["a bomb"]


@pytest.mark.parametrize("first", [True, False], ids=["guard first", "guard last"])
def test_people_who_approve_each_call_are_asked_beside_the_guard(run: Any, first: bool) -> None:
    note, written = notebook()
    human = HumanInTheLoopMiddleware(interrupt_on={"note": True}, interrupt_mode="per_call")
    guard = ToolGuardMiddleware(safeguard=people())
    around = [guard, human] if first else [human, guard]
    built = agent(calling("a bomb"), [note], around=around)
    state, questions = run(built, HI), 0
    while state.interrupts:
        [value] = asked(state)
        questions += 1
        state = run(built, Command(resume="allow" if "side" in value else {"type": "approve"}))
    assert questions == 3
    assert ran(state)[-2:] == [("tool", "noted a bomb"), ("ai", "Done.")]
    assert written == ["a bomb"]


def test_two_in_one_agent_ask_one_after_the_other(run: Any) -> None:
    model = StreamingChatModel(script=UNSAFE)
    around = [
        SafeguardMiddleware(safeguard=people({"bomb": "indiscriminate_weapons"}), name="a"),
        SafeguardMiddleware(safeguard=people({"powders": "hate"}), name="b"),
    ]
    built = agent(model, around=around)
    about = [asked(run(built, HI))[0]["about"]]
    about.append(asked(run(built, Command(resume="allow")))[0]["about"])
    assert about == [["indiscriminate_weapons"], ["hate"]]
    state = run(built, Command(resume="allow"))
    assert ran(state)[-1] == ("ai", UNSAFE)
    assert model.tally.calls == 1


def test_what_one_of_two_lets_through_the_other_still_blocks(run: Any) -> None:
    around = [
        SafeguardMiddleware(safeguard=people({"bomb": "indiscriminate_weapons"}), name="a"),
        SafeguardMiddleware(WordGuard({"powders": "hate"})),
    ]
    for order in (around, around[::-1]):
        built = agent(UNSAFE, around=order)
        state = run(built, HI)
        if state.interrupts:
            state = run(built, Command(resume="allow"))
        assert ran(state)[-1] == ("ai", REFUSAL)


COMPANY: dict[str, Callable[[], AgentMiddleware[Any, Any, Any]]] = {
    "retry": lambda: ModelRetryMiddleware(max_retries=2, initial_delay=0),
    "fallback": lambda: ModelFallbackMiddleware(StreamingChatModel(script="Something else.")),
}


@pytest.mark.parametrize("first", [True, False], ids=["guard first", "guard last"])
@pytest.mark.parametrize("company", COMPANY)
def test_asking_a_person_is_no_failure_to_be_repaired(run: Any, company: str, first: bool) -> None:
    model = StreamingChatModel(script=UNSAFE)
    guard, other = SafeguardMiddleware(safeguard=people()), COMPANY[company]()
    built = agent(model, around=[guard, other] if first else [other, guard])
    assert asked(run(built, HI))
    assert ran(run(built, Command(resume="allow")))[-1] == ("ai", UNSAFE)
    assert model.tally.calls == 1


def test_the_answer_of_another_model_waits_too(run: Any) -> None:
    other = StreamingChatModel(script=UNSAFE)
    around = [SafeguardMiddleware(safeguard=people()), ModelFallbackMiddleware(other)]
    built = agent(StreamingChatModel(script=[RuntimeError("down")]), around=around)
    assert asked(run(built, HI))
    assert ran(run(built, Command(resume="allow")))[-1] == ("ai", UNSAFE)
    assert other.tally.calls == 1


def test_an_agent_inside_another_one_waits_in_its_place(run: Any) -> None:
    model = StreamingChatModel(script=UNSAFE)
    inner = agent(model, checkpointer=None)

    @tool
    def note(text: str) -> str:
        """Ask the other agent."""
        return str(inner.invoke(HI)["messages"][-1].text)

    async def anote(text: str) -> str:
        return str((await inner.ainvoke(HI))["messages"][-1].text)

    note.coroutine = anote  # type: ignore[attr-defined]
    built = agent(calling("hi", then="I see."), [note])
    assert asked(run(built, HI))
    state = run(built, Command(resume={"edit": "Bake bread."}))
    assert ran(state)[-2:] == [("tool", "Bake bread."), ("ai", "I see.")]
    assert model.tally.calls == 1


def test_users_turns_and_answers_are_asked_about_one_after_the_other(run: Any) -> None:
    model = StreamingChatModel(script=UNSAFE)
    built = agent(model)
    sides = [asked(run(built, {"messages": [("user", "a bomb")]}))[0]["side"]]
    sides.append(asked(run(built, Command(resume="allow")))[0]["side"])
    assert sides == ["input", "output"]
    assert ran(run(built, Command(resume="allow")))[-1] == ("ai", UNSAFE)
    assert model.tally.calls == 1


# --- nowhere else ---


def test_what_waits_appears_on_no_channel() -> None:
    note, written = notebook()
    arguments = '{"text": "put the bomb together now"}'
    for script in (UNSAFE, [*words("I note it. "), *call_chunks("note", arguments)]):
        built = agent(script, [note])
        channels = ["core", "events", "callbacks", "langgraph"]
        assert_no_leak(
            built, SECRET, input=HI, config=thread(), channels=channels, allow_errors=False
        )
    assert not written


# --- what is gone ---


def again(built: Callable[[Safeguard], Any], answer: Any = "allow") -> Any:
    """Run to the interrupt, and go on where nothing of it is known but what was saved."""
    built(people()).invoke(HI, thread())
    return built(people()).invoke(Command(resume=answer), thread())


def test_an_answer_that_is_gone_is_refused() -> None:
    saver, model = InMemorySaver(), StreamingChatModel(script=UNSAFE)

    def built(safeguard: Safeguard) -> Any:
        around = [SafeguardMiddleware(safeguard=safeguard, name="guard")]
        return agent(model, around=around, checkpointer=saver)

    assert contents(again(built))[-1] == ("ai", LOST_MESSAGE)
    assert model.tally.calls == 1


@pytest.mark.parametrize("through", ["tool", "middleware"])
def test_a_tool_whose_result_is_gone_is_not_run_again(through: str) -> None:
    saver, (note, written) = InMemorySaver(), notebook()
    model = StreamingChatModel(script=calling("hate"))

    def built(safeguard: Safeguard) -> Any:
        if through == "tool":
            tools, around = [guard_tool(note, safeguard=safeguard, input=False)], []
        else:
            tools = [note]
            around = [ToolGuardMiddleware(safeguard=safeguard, input=False, name="guard")]
        return create_agent(model, tools, middleware=around, checkpointer=saver)

    state = again(built)
    [message] = [each for each in state["messages"] if isinstance(each, ToolMessage)]
    assert message.status == "error"
    assert "lost" in message.text and "not called again" in message.text
    assert written == ["hate"]


def test_the_oldest_is_lost_when_too_much_waits(caplog: pytest.LogCaptureFixture) -> None:
    store = HeldResults(most=2)
    for key in "ab":
        store.hold(key, Held(()))
    store.settle("b")
    store.hold("c", Held(()))
    assert [bool(store.get(key)) for key in "abc"] == [True, False, True]
    assert not caplog.records
    store.hold("x", Held((), waits=False))
    assert [bool(store.get(key)) for key in "acx"] == [True, True, False]
    assert not caplog.records
    store.hold("d", Held(()))
    assert [bool(store.get(key)) for key in "abcd"] == [False, False, True, True]
    assert "the oldest is lost" in caplog.text


class Broken(HeldResults):
    """A store whose database is away."""

    def hold(self, key: str, held: Held) -> None:
        raise ConnectionError(SECRET)


def test_what_cannot_be_held_is_blocked(run: Any, caplog: pytest.LogCaptureFixture) -> None:
    safeguard = people(held=Broken())
    built = agent(UNSAFE, around=[SafeguardMiddleware(safeguard=safeguard)])
    state = run(built, HI)
    assert ran(state)[-1] == ("ai", REFUSAL)
    assert SECRET not in caplog.text


def test_nobody_is_asked_about_an_answer_in_a_run_that_is_not_saved(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = StreamingChatModel(script=UNSAFE)
    built = agent(model, checkpointer=None)
    assert contents(built.invoke(HI))[-1] == ("ai", REFUSAL)
    assert "the graph needs a checkpointer" in caplog.text


@pytest.mark.parametrize("held", [7, HeldResults, "sqlite://user:pa55@host", object()])
def test_a_wrong_store_is_named(held: Any) -> None:
    with pytest.raises(ConfigurationError, match="allowed: HeldResults") as error:
        people(held=held)
    assert "pa55" not in str(error.value)


@pytest.mark.parametrize("most", [0, -1, True, "5", 1.0])
def test_a_wrong_bound_is_named(most: Any) -> None:
    with pytest.raises(ValueError, match="most="):
        HeldResults(most)


# --- models in the nodes of a graph ---


def graph(node: Any, anode: Any = None, **options: Any) -> Any:
    builder = StateGraph(MessagesState)
    builder.add_node("node", anode or node)
    builder.add_edge(START, "node")
    return builder.compile(checkpointer=InMemorySaver(), **options)


def counting() -> StreamingChatModel:
    """A model that never says the same twice."""
    model = StreamingChatModel(script=lambda messages: f"Take bomb number {model.tally.calls}.")
    return model


@ASYNC
@pytest.mark.parametrize("mode", ["sequential", "parallel"])
@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(("answer", "said"), [("allow", "Take bomb number 1."), ("block", REFUSAL)])
def test_a_model_in_a_node_is_not_called_again(
    answer: str, said: str, streamed: bool, mode: Any, is_async: bool
) -> None:
    model = counting()
    guarded = guard_model(model, safeguard=people(), mode=mode, check_every=4)

    def node(state: Any) -> Any:
        if streamed:
            return {"messages": "".join(chunk.text for chunk in guarded.stream(state["messages"]))}
        return {"messages": guarded.invoke(state["messages"])}

    async def anode(state: Any) -> Any:
        if streamed:
            chunks = [chunk.text async for chunk in guarded.astream(state["messages"])]
            return {"messages": "".join(chunks)}
        return {"messages": await guarded.ainvoke(state["messages"])}

    built = graph(node, anode if is_async else None)
    way = WAYS["ainvoke" if is_async else "invoke"]
    assert way(built, HI, thread())["__interrupt__"]
    state = way(built, Command(resume=answer), thread())
    assert state["messages"][-1].text == said
    assert model.tally.calls == 1


@ASYNC
def test_two_answers_in_one_node_are_not_mixed_up(is_async: bool) -> None:
    model = counting()
    guarded = guard_model(model, safeguard=people())

    def node(state: Any) -> Any:
        said = [guarded.invoke(text).text for text in ("first", "second", "second")]
        return {"messages": "|".join(said)}

    async def anode(state: Any) -> Any:
        said = [(await guarded.ainvoke(text)).text for text in ("first", "second", "second")]
        return {"messages": "|".join(said)}

    built = graph(node, anode if is_async else None)
    way = WAYS["ainvoke" if is_async else "invoke"]
    way(built, HI, thread())
    for answer in ("allow", "block", {"edit": "third"}):
        state = way(built, Command(resume=answer), thread())
    assert state["messages"][-1].text == f"Take bomb number 1.|{REFUSAL}|third"
    assert model.tally.calls == 3


def test_an_answer_that_others_asked_for_is_not_taken() -> None:
    model = StreamingChatModel(
        script=lambda messages: "Bread." if model.tally.calls == 1 else "A bomb."
    )
    guarded = guard_model(model, safeguard=people())

    def node(state: Any) -> Any:
        said = guarded.invoke("hi").text
        return {"messages": f"{said} {interrupt('Shall I go on?')}"}

    built = graph(node)
    built.invoke(HI, thread())
    # The model is called again, since nobody was asked about what it said first.
    state = built.invoke(Command(resume="allow"), thread())
    assert state["messages"][-1].text == f"{REFUSAL} allow"


def test_questions_of_the_node_itself_get_their_own_answers() -> None:
    model = counting()
    guarded = guard_model(model, safeguard=people())

    def node(state: Any) -> Any:
        before = interrupt("before?")
        said = guarded.invoke("hi").text
        return {"messages": f"{before} {said} {interrupt('after?')}"}

    built = graph(node)
    built.invoke(HI, thread())
    for answer in ("one", "allow", "two"):
        state = built.invoke(Command(resume=answer), thread())
    assert state["messages"][-1].text == "one Take bomb number 1. two"
    assert model.tally.calls == 1


def test_a_guard_that_judges_differently_shifts_no_answers() -> None:
    safeguard = people()
    guarded = guard_model(StreamingChatModel(script="Fine."), safeguard=safeguard)
    guard: Any = safeguard.guards[0]

    def node(state: Any) -> Any:
        said = guarded.invoke("a bomb").text
        return {"messages": f"{said} {interrupt('after?')}"}

    built = graph(node)
    built.invoke(HI, thread())
    guard.words = {}
    state = built.invoke(Command(resume="allow"), thread())
    assert state["__interrupt__"][0].value == "after?"
    state = built.invoke(Command(resume="yes"), thread())
    assert state["messages"][-1].text == "Fine. yes"


def test_an_answer_in_a_node_that_is_gone_is_refused_and_the_node_goes_on() -> None:
    model, saver = counting(), InMemorySaver()

    def built() -> Any:
        guarded = guard_model(model, safeguard=people())

        def node(state: Any) -> Any:
            said = guarded.invoke("hi").text
            return {"messages": f"{said} {interrupt('after?')}"}

        builder = StateGraph(MessagesState)
        builder.add_node("node", node)
        builder.add_edge(START, "node")
        return builder.compile(checkpointer=saver)

    built().invoke(HI, thread())
    state = built().invoke(Command(resume="allow"), thread())
    assert state["__interrupt__"][0].value == "after?"
    state = built().invoke(Command(resume="yes"), thread())
    assert state["messages"][-1].text == f"{LOST_MESSAGE} yes"
    assert model.tally.calls == 1


def test_all_that_was_asked_about_something_that_is_gone_is_passed_over() -> None:
    saver = InMemorySaver()

    def built() -> Any:
        def until_it_makes_sense(escalation: Any) -> Any:
            while (answer := interrupt("what?")) not in ("allow", "block"):
                pass
            return answer

        safeguard = people(handlers=[until_it_makes_sense])
        guarded = guard_model(counting(), safeguard=safeguard)

        def node(state: Any) -> Any:
            said = guarded.invoke("hi").text
            return {"messages": f"{said} {interrupt('after?')}"}

        builder = StateGraph(MessagesState)
        builder.add_node("node", node)
        builder.add_edge(START, "node")
        return builder.compile(checkpointer=saver)

    first = built()
    first.invoke(HI, thread())
    for answer in ("hm", "well"):
        assert first.invoke(Command(resume=answer), thread())["__interrupt__"][0].value == "what?"
    state = built().invoke(Command(resume="allow"), thread())
    assert state["__interrupt__"][0].value == "after?"
    state = built().invoke(Command(resume="yes"), thread())
    assert state["messages"][-1].text == f"{LOST_MESSAGE} yes"


@pytest.mark.parametrize("place", ["agent", "model", "chain", "tool"])
def test_a_human_review_decides_in_any_of_these_places(run: Any, place: str) -> None:
    safeguard = people(handlers=[HumanReview()])
    model = counting()
    if place == "agent":
        built = agent(model, around=[SafeguardMiddleware(safeguard=safeguard)])
    elif place == "tool":
        note, _ = notebook()
        model = StreamingChatModel(script=calling("hate"))
        built = agent(model, [guard_tool(note, safeguard=safeguard, input=False)], around=[])
    else:
        guarded: Any = guard_model(model, safeguard=safeguard)
        if place == "chain":
            guarded = model | OutputGuard(safeguard=safeguard)

        async def anode(state: Any) -> Any:
            return {"messages": await guarded.ainvoke("hi")}

        built = graph(RunnableLambda(lambda state: {"messages": guarded.invoke("hi")}, anode))
    request = asked(run(built, HI))[0]
    assert request["action_requests"] and "error" not in request
    again = asked(run(built, Command(resume="nonsense")))[0]
    assert "error" in again
    state = run(built, Command(resume={"decisions": [{"type": "approve"}]}))
    assert not state.interrupts
    said = [text for _, text in ran(state)]
    assert ("noted hate" if place == "tool" else "Take bomb number 1.") in said
    assert model.tally.calls == (2 if place == "tool" else 1)


# --- tools ---


@ASYNC
@pytest.mark.parametrize("through", ["tool", "middleware"])
def test_of_several_calls_each_runs_once_and_gets_its_own_decision(
    through: str, is_async: bool
) -> None:
    note, written = notebook()
    texts = ["a bomb", "bread", "hate"]

    def script(messages: list[AnyMessage]) -> Any:
        if isinstance(messages[-1], ToolMessage):
            return "Done."
        calls = [
            {"name": "note", "args": f'{{"text": "{text}"}}', "id": f"c{at}", "index": at}
            for at, text in enumerate(texts)
        ]
        chunk: Any = {"tool_call_chunks": [{**call, "type": "tool_call_chunk"} for call in calls]}
        return [AIMessageChunk("", **chunk)]

    if through == "tool":
        tools, around = [guard_tool(note, safeguard=people(), input=False)], []
    else:
        tools, around = [note], [ToolGuardMiddleware(safeguard=people(), input=False)]
    built = agent(script, tools, around=around)
    way = WAYS["ainvoke" if is_async else "invoke"]
    state = way(built, HI, thread())
    assert len(state["__interrupt__"]) == 2
    first, second = sorted(state["__interrupt__"], key=lambda i: i.value["about"], reverse=True)
    state = way(built, Command(resume={second.id: "block"}), thread())
    assert [each.id for each in state["__interrupt__"]] == [first.id]
    state = way(built, Command(resume={first.id: "allow"}), thread())
    told = [each.text for each in state["messages"] if isinstance(each, ToolMessage)]
    assert told[:2] == ["noted a bomb", "noted bread"]
    assert "withheld" in told[2]
    assert sorted(written) == sorted(texts)


@ASYNC
def test_a_tool_that_asks_by_itself_does_not_begin_anew_when_its_result_waits(
    is_async: bool,
) -> None:
    ran: list[str] = []

    @tool
    def note(text: str) -> str:
        """Ask first."""
        ran.append(interrupt("may I?"))
        return "a bomb"

    built = agent(calling("hi"), [guard_tool(note, safeguard=people())], around=[])
    way = WAYS["ainvoke" if is_async else "invoke"]
    way(built, HI, thread())
    state = way(built, Command(resume="yes"), thread())
    assert state["__interrupt__"][0].value["side"] == "tool_output"
    state = way(built, Command(resume="allow"), thread())
    assert contents(state)[-2:] == [("tool", "a bomb"), ("ai", "Done.")]
    assert ran == ["yes"]


@pytest.mark.parametrize("answer", ["allow", "block"])
def test_arguments_and_results_are_asked_about_one_after_the_other(answer: str) -> None:
    note, written = notebook()
    built = agent(calling("a bomb"), [note], around=[ToolGuardMiddleware(safeguard=people())])
    sides = [built.invoke(HI, thread())["__interrupt__"][0].value["side"]]
    sides.append(built.invoke(Command(resume="allow"), thread())["__interrupt__"][0].value["side"])
    assert sides == ["tool_input", "tool_output"]
    state = built.invoke(Command(resume=answer), thread())
    told = [each.text for each in state["messages"] if isinstance(each, ToolMessage)]
    assert ("noted a bomb" in told[0]) == (answer == "allow")
    assert written == ["a bomb"]


def test_what_other_middleware_returns_for_a_tool_waits_too() -> None:
    note, written = notebook()
    model = StreamingChatModel(script=calling("bread"))

    class Doubling(AgentMiddleware[Any, Any, Any]):
        def wrap_tool_call(self, request: Any, handler: Any) -> Any:
            message = handler(request)
            return message.model_copy(update={"content": f"{message.text}, and a bomb"})

    around = [ToolGuardMiddleware(safeguard=people()), Doubling()]
    built = agent(model, [note], around=around)
    assert built.invoke(HI, thread())["__interrupt__"][0].value["side"] == "tool_output"
    state = built.invoke(Command(resume="allow"), thread())
    assert contents(state)[-2] == ("tool", "noted bread, and a bomb")
    assert written == ["bread"]


def test_a_result_that_is_the_answer_waits_too() -> None:
    note, written = notebook()
    note.return_direct = True
    built = agent(calling("a bomb"), [note], around=[ToolGuardMiddleware(safeguard=people())])
    built.invoke(HI, thread())
    built.invoke(Command(resume="allow"), thread())
    state = built.invoke(Command(resume={"edit": "Noted."}), thread())
    assert contents(state)[-1] == ("tool", "Noted.")
    assert written == ["a bomb"]


class Calls(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


@ASYNC
def test_tools_in_a_node_of_tools_are_not_run_again(is_async: bool) -> None:
    note, written = notebook()
    builder = StateGraph(Calls)
    builder.add_node("tools", ToolNode([guard_tool(note, safeguard=people(), input=False)]))
    builder.add_edge(START, "tools")
    built = builder.compile(checkpointer=InMemorySaver())
    calls: list[Any] = [
        {"name": "note", "args": {"text": text}, "id": text, "type": "tool_call"}
        for text in ("hate", "bread", "milk")
    ]
    asking = {"messages": [HumanMessage("hi"), AIMessage("", tool_calls=calls)]}
    way = WAYS["ainvoke" if is_async else "invoke"]
    assert way(built, asking, thread())["__interrupt__"]
    state = way(built, Command(resume="allow"), thread())
    told = [message.text for message in state["messages"][2:]]
    assert told == ["noted hate", "noted bread", "noted milk"]
    assert sorted(written) == ["bread", "hate", "milk"]


def test_many_threads_at_once_do_not_mix() -> None:
    model = StreamingChatModel(script=lambda messages: f"The bomb of {messages[-1].text}.")
    built = agent(model, around=[SafeguardMiddleware(safeguard=people())])

    async def one(name: str) -> str:
        await built.ainvoke({"messages": [("user", name)]}, thread(name))
        await asyncio.sleep(0)
        state = await built.ainvoke(Command(resume="allow"), thread(name))
        return str(state["messages"][-1].text)

    async def all_of_them() -> list[str]:
        return await asyncio.gather(*(one(f"n{number}") for number in range(12)))

    assert asyncio.run(all_of_them()) == [f"The bomb of n{number}." for number in range(12)]
    assert model.tally.calls == 12


# --- in a database ---


@pytest.fixture
def database(database_url: str) -> Iterator[HeldDatabase]:
    store = HeldDatabase(database_url)
    yield store
    store.close()


VALUES: dict[str, Any] = {
    "answer": AIMessage(
        [{"type": "text", "text": "a bomb"}, {"type": "reasoning", "reasoning": "so"}],
        id="m1",
        tool_calls=[{"name": "note", "args": {"text": "x"}, "id": "c1"}],
        response_metadata={"model_name": "m"},
        usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
    ),
    "question": None,
    "text": "a bomb",
    "result": Outcome(ToolMessage("a bomb", tool_call_id="c1", artifact={"rows": [1, 2]})),
    "plain result": Outcome({"rows": [1, "a"], "none": None}),
    "command": Outcome(Command(update={"messages": [HumanMessage("hi", id="1")]})),
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_what_waits_in_a_database_comes_back_as_it_was(database: Any, value: Any) -> None:
    verdict = WordGuard().check([Conversation.of("a bomb")], "input")[0]
    spanned = replace(verdict, spans=(Span(0, 4, 0.5),), unchecked=("image",), explanation="no")
    held = Held((verdict, spanned), value)
    for _ in range(2):
        database.hold("k", held)
        # A `Command` compares where it goes to, which comes back as a list.
        assert repr(database.get("k")) == repr(held)
    assert database.get("other") is None


def test_an_error_comes_back_with_its_words(database: Any) -> None:
    try:
        try:
            raise ValueError("inner")
        except ValueError as inner:
            raise KeyError("outer") from inner
    except KeyError as error:
        database.hold("k", Held((), Outcome(failure=error)))
        held = database.get("k")
        assert words_of(held.value.failure) == words_of(error) == ["'outer'", "inner"]


class Own:
    """Something of the application's own."""

    def __str__(self) -> str:
        return SECRET


@pytest.mark.parametrize("value", [Own(), Outcome(Own()), Outcome({"a": Own()}), Outcome((1, 2))])
def test_what_would_not_come_back_the_same_is_not_kept(database: Any, value: Any) -> None:
    with pytest.raises(TypeError) as error:
        database.hold("k", Held((), value))
    assert SECRET not in str(error.value)
    assert database.get("k") is None


def test_what_is_decided_about_is_deleted_later(tmp_path: Path) -> None:
    store = HeldDatabase(tmp_path / "held.db", keep=timedelta(0))
    for key in "ab":
        store.hold(key, Held(()))
    store.settle("a")
    store.hold("x", Held((), waits=False))
    assert store.get("x") is not None
    store.hold("c", Held(()))
    assert [store.get(key) is not None for key in "abcx"] == [False, True, True, False]
    store.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": 7}, "cannot be read"),
        ({"url": "nothing://user:pa55@host"}, "allowed: sqlite, postgresql"),
        ({"url": "sqlite:////no/such/folder/held.db"}, "there is no"),
        ({"url": "sqlite://"}, "in memory"),
        ({"url": "sqlite:///:memory:"}, "in memory"),
        ({"url": "sqlite:///x.db", "keep": 5}, "keep=5"),
        ({"url": "sqlite:///x.db", "keep": timedelta(-1)}, "keep="),
    ],
)
def test_a_wrong_database_is_named(options: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as error:
        HeldDatabase(**options)
    assert "pa55" not in str(error.value)


@pytest.mark.parametrize(
    ("package", "extra"), [("sqlalchemy", "review"), ("langgraph.checkpoint.serde", "agents")]
)
def test_a_missing_package_names_the_extra(
    package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith(package)]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "langchain_safeguard.holding.held_database")
    with pytest.raises(MissingExtraError) as error:
        importlib.import_module("langchain_safeguard.holding.held_database")
    assert error.value.extra == extra


PROCESS = """
import sqlite3, sys
from langchain.agents import create_agent
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.types import Command
from langchain_safeguard import HeldDatabase
from langchain_safeguard.middleware import SafeguardMiddleware, ToolGuardMiddleware
from tests.agents import HI, contents
from tests.chat_models import StreamingChatModel
from tests.integration.test_held import logged, people, three_steps, thread

folder, *answers = sys.argv[1:]
model = StreamingChatModel(script=three_steps(f"{folder}/calls"))
safeguard = people(held=HeldDatabase(f"{folder}/held.db"))
around = [SafeguardMiddleware(safeguard=safeguard), ToolGuardMiddleware(safeguard=safeguard)]
saver = SqliteSaver(sqlite3.connect(f"{folder}/threads.db", check_same_thread=False))
agent = create_agent(model, [logged(f"{folder}/ran")], middleware=around, checkpointer=saver)
state = agent.invoke(Command(resume=answers[0]) if answers else HI, thread())
for each in state.get("__interrupt__", ()):
    print("asks about", each.value["side"])
if "__interrupt__" not in state:
    print(contents(state)[-1])
"""


def logged(path: str) -> Any:
    """Make a tool that writes down, in a file, that it ran."""

    @tool
    def note(text: str) -> str:
        """Write a note."""
        with open(path, "a") as file:
            file.write(f"{text}\n")
        return f"noted a bomb, {text}"

    return note


def three_steps(path: str) -> Any:
    """Script a model that writes down, in a file, that it was called."""

    def script(messages: list[AnyMessage]) -> Any:
        with open(path, "a") as file:
            file.write("called\n")
        return calling("bread", then="The bomb is noted.")(messages)

    return script


def test_a_run_goes_on_in_another_process(tmp_path: Path) -> None:
    pytest.importorskip("langgraph.checkpoint.sqlite")
    said = []
    for answer in ([], ["allow"], ["allow"]):
        command = [sys.executable, "-c", PROCESS, str(tmp_path), *answer]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout.strip())
    assert said == ["asks about tool_output", "asks about output", "('ai', 'The bomb is noted.')"]
    assert (tmp_path / "ran").read_text() == "bread\n"
    assert (tmp_path / "calls").read_text() == "called\n" * 2


def test_what_waits_is_not_in_the_checkpoints(tmp_path: Path) -> None:
    sqlite = pytest.importorskip("langgraph.checkpoint.sqlite")
    connection = sqlite3.connect(tmp_path / "threads.db", check_same_thread=False)
    note, written = notebook()
    built = agent(calling("bomb"), [note], checkpointer=sqlite.SqliteSaver(connection))
    built.invoke(HI, thread())
    state = built.get_state(thread())
    connection.close()
    saved = b"".join(path.read_bytes() for path in sorted(tmp_path.iterdir()))
    assert b"output" in saved and asked(state)
    assert b"bomb" not in saved and not written


def test_a_database_that_goes_away_lets_nothing_pass(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    held = HeldDatabase(tmp_path / "held.db")
    note, written = notebook()
    around = [ToolGuardMiddleware(safeguard=people(held=held), input=False)]
    built = agent(calling("hate"), [note], around=around)
    connection = sqlite3.connect(tmp_path / "held.db")
    connection.execute("DROP TABLE safeguard_held")
    connection.commit()
    connection.close()
    state = built.invoke(HI, thread())
    assert "withheld" in contents(state)[-2][1]
    assert written == ["hate"]
    assert "hate" not in caplog.text
    held.close()


# --- chains in the nodes of a graph ---


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream"])
@pytest.mark.parametrize("mode", ["sequential", "parallel"])
@pytest.mark.parametrize("parsed", [True, False], ids=["text", "message"])
@pytest.mark.parametrize(
    ("answer", "said"), [("allow", "Take bomb number 1."), ({"edit": "Bread."}, "Bread.")]
)
def test_a_chain_in_a_node_is_not_run_again(
    way: str, mode: Any, parsed: bool, answer: Any, said: str
) -> None:
    model, safeguard = counting(), people()
    steps = model | StrOutputParser() if parsed else model
    chain = InputGuard(safeguard=safeguard, mode=mode) | steps | OutputGuard(safeguard=safeguard)

    def text(value: Any) -> str:
        return value if isinstance(value, str) else str(value.text)

    async def anode(state: Any) -> Any:
        if way == "astream":
            return {"messages": "".join([text(chunk) async for chunk in chain.astream("hi")])}
        return {"messages": text(await chain.ainvoke("hi"))}

    def node(state: Any) -> Any:
        if way == "stream":
            return {"messages": "".join(map(text, chain.stream("hi")))}
        return {"messages": text(chain.invoke("hi"))}

    built = graph(node, anode if way.startswith("a") else None)
    go = WAYS["ainvoke" if way.startswith("a") else "invoke"]
    assert go(built, HI, thread())["__interrupt__"][0].value["side"] == "output"
    state = go(built, Command(resume=answer), thread())
    assert state["messages"][-1].text == said
    assert model.tally.calls == 1


def test_the_answer_of_a_chain_that_is_gone_is_refused() -> None:
    model, saver = counting(), InMemorySaver()

    def built() -> Any:
        chain = model | OutputGuard(safeguard=people())
        builder = StateGraph(MessagesState)
        builder.add_node("node", lambda state: {"messages": chain.invoke("hi")})
        builder.add_edge(START, "node")
        return builder.compile(checkpointer=saver)

    built().invoke(HI, thread())
    state = built().invoke(Command(resume="allow"), thread())
    assert state["messages"][-1].text == LOST_MESSAGE
    assert model.tally.calls == 1
