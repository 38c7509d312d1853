"""A person decides about held texts: nothing passes before, and the model is not asked again."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command

import langchain_safeguard
from langchain_safeguard import (
    ConfigurationError,
    ContentBlockedError,
    Conversation,
    HumanReview,
    InputGuard,
    OutputGuard,
    ReviewQueue,
    Safeguard,
    guard_model,
    guard_tool,
    guarded,
    with_ticket,
)
from langchain_safeguard.errors import ReviewSetupError
from tests.chat_models import StreamingChatModel
from tests.guarded_chains import METHODS, call, text_of
from tests.word_guard import WordGuard

ROOT = Path(langchain_safeguard.__file__).parent.parent
ANSWER = "Well, I hate mondays a lot, and that is all there is to say about them, my friend."
POLICY = {"rules": [{"categories": "hate", "action": "escalate"}]}
HELD = "This is held for review. Ticket: "


@pytest.fixture
def queue(tmp_path: Path) -> ReviewQueue:
    return ReviewQueue(tmp_path / "reviews.db")


def reviewed(queue: ReviewQueue | None, **options: Any) -> Safeguard:
    return Safeguard(WordGuard(), POLICY, handlers=[HumanReview(queue, **options)])


def parsed(safeguard: Safeguard, model: Any) -> Runnable[Any, Any]:
    return (
        InputGuard(safeguard=safeguard)
        | model
        | StrOutputParser()
        | OutputGuard(safeguard=safeguard)
    )


CHAINS: dict[str, Callable[[Safeguard, Any], Runnable[Any, Any]]] = {
    "guards": lambda safeguard, model: (
        ChatPromptTemplate.from_template("Be brief. {question}")
        | InputGuard(safeguard=safeguard)
        | model
        | OutputGuard(safeguard=safeguard)
    ),
    "parser": lambda safeguard, model: (
        ChatPromptTemplate.from_template("{question}") | parsed(safeguard, model)
    ),
    "guarded": lambda safeguard, model: guarded(
        ChatPromptTemplate.from_template("{question}") | model, safeguard=safeguard
    ),
    "parallel": lambda safeguard, model: (
        ChatPromptTemplate.from_template("{question}")
        | InputGuard(safeguard=safeguard, mode="parallel")
        | model
        | OutputGuard(safeguard=safeguard)
    ),
    "model": lambda safeguard, model: (
        ChatPromptTemplate.from_template("{question}") | guard_model(model, safeguard=safeguard)
    ),
}


def ticket_in(queue: ReviewQueue, output: Any) -> str:
    """Return the one ticket that is open, which is the one that was told."""
    [ticket] = queue.list()
    assert text_of(output) == f"{HELD}{ticket.id}"
    return ticket.id


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", CHAINS)
async def test_an_answer_is_held_and_released(queue: ReviewQueue, kind: str, method: str) -> None:
    model = StreamingChatModel(script=ANSWER)
    chain, asked = CHAINS[kind](reviewed(queue), model), {"question": "How are you?"}
    id = ticket_in(queue, await call(chain, method, asked))
    assert model.tally.calls == 1
    with_it = chain.with_config(with_ticket(id))
    assert text_of(await call(with_it, method, asked)) == f"{HELD}{id}"
    queue.decide(id, "approve")
    assert text_of(await call(with_it, method, asked)) == ANSWER
    # What was said to somebody else, or without the ticket, is another matter.
    assert model.tally.calls == 1
    other = await call(with_it, method, {"question": "And you?"})
    assert model.tally.calls == 2
    ticket_in(queue, other)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("verb", "words", "expected"),
    [
        ("edit", "I like mondays.", "I like mondays."),
        ("edit", "I hate mondays, says a person.", "I hate mondays, says a person."),
        ("reject", None, "I'm sorry, but I can't help with that."),
        ("reject", "We do not talk about days.", "We do not talk about days."),
        ("respond", "Ask me about tuesdays.", "Ask me about tuesdays."),
    ],
)
@pytest.mark.parametrize("kind", ["guards", "parser", "model"])
async def test_what_was_decided_about_an_answer(
    queue: ReviewQueue, kind: str, method: str, verb: Any, words: str | None, expected: str
) -> None:
    model = StreamingChatModel(script=ANSWER)
    chain, asked = CHAINS[kind](reviewed(queue), model), {"question": "How are you?"}
    id = ticket_in(queue, await call(chain, method, asked))
    queue.decide(id, verb, words)
    assert text_of(await call(chain.with_config(with_ticket(id)), method, asked)) == expected
    assert model.tally.calls == 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", CHAINS)
async def test_a_question_is_held_and_then_its_answer(
    queue: ReviewQueue, kind: str, method: str
) -> None:
    model = StreamingChatModel(script=ANSWER)
    chain, asked = CHAINS[kind](reviewed(queue), model), {"question": "Do you hate me?"}
    first = ticket_in(queue, await call(chain, method, asked))
    assert kind == "parallel" or model.tally.calls == 0
    before = model.tally.calls
    queue.decide(first, "approve")
    second = ticket_in(queue, await call(chain.with_config(with_ticket(first)), method, asked))
    assert model.tally.calls == before + 1
    queue.decide(second, "approve")
    # The second ticket remembers the first.
    assert text_of(await call(chain.with_config(with_ticket(second)), method, asked)) == ANSWER
    assert model.tally.calls == before + 1


@pytest.mark.parametrize("method", METHODS)
async def test_an_edited_question_is_what_the_model_reads(queue: ReviewQueue, method: str) -> None:
    model = StreamingChatModel(script="Hello.")
    chain, asked = CHAINS["model"](reviewed(queue), model), {"question": "I hate you"}
    id = ticket_in(queue, await call(chain, method, asked))
    queue.decide(id, "edit", "I like you")
    assert text_of(await call(chain.with_config(with_ticket(id)), method, asked)) == "Hello."
    assert [m.text for m in model.tally.prompts[-1]] == ["I like you"]


def test_the_answer_comes_back_whole(queue: ReviewQueue) -> None:
    call = {"name": "send", "args": {"text": "I hate you"}, "id": "c1", "type": "tool_call"}
    answer = AIMessageChunk("I send it.", tool_calls=[call], id="mine")
    model = guard_model(StreamingChatModel(script=[answer]), safeguard=reviewed(queue))
    model.invoke("Send it")
    [ticket] = queue.list()
    assert "I hate you" in ticket.text
    queue.decide(ticket.id, "approve")
    released = model.invoke("Send it", config=with_ticket(ticket.id))
    assert (released.text, released.tool_calls, released.id) == ("I send it.", [call], "mine")


def test_what_cannot_be_made_again_is_not_guessed(queue: ReviewQueue) -> None:
    @dataclass
    class Report:
        text: str

    safeguard = reviewed(queue)
    chain = (
        InputGuard(safeguard=safeguard)
        | RunnableLambda(lambda _: Report("I hate it"))
        | OutputGuard(safeguard=safeguard, refusal=lambda decision: decision.ticket)
    )
    id = chain.invoke("hello")
    assert queue.decide(id, "approve").released == "text\nI hate it"
    with pytest.raises(ReviewSetupError, match="cannot be made again"):
        chain.invoke("hello", config=with_ticket(id))


@pytest.mark.parametrize("id", ["call_1", None], ids=["asked by a model", "asked by code"])
@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_tool_whose_result_is_held_does_not_run_again(
    queue: ReviewQueue, way: str, id: str | None
) -> None:
    runs: list[str] = []

    @tool
    def fetch(page: str) -> dict[str, Any]:
        """Fetch a page."""
        runs.append(page)
        return {"page": page, "text": f"hate, take {len(runs)}"}

    guarded_fetch = guard_tool(fetch, safeguard=reviewed(queue))

    def run(config: Any = None, id: str | None = id) -> str:
        asked: Any = {"page": "I hate it"}
        if id is not None:
            asked = {"type": "tool_call", "id": id, "name": "fetch", "args": asked}
        if way == "sync":
            said = guarded_fetch.invoke(asked, config)
        else:
            said = asyncio.run(guarded_fetch.ainvoke(asked, config))
        assert id is None or said.tool_call_id == id
        return str(said.content if id is not None else said)

    def decided(said: str) -> Any:
        [ticket] = queue.list()
        assert said.endswith(f"{HELD}{ticket.id}")
        queue.decide(ticket.id, "approve")
        return with_ticket(ticket.id)

    arguments = decided(run())
    assert runs == []
    result = decided(run(arguments))
    assert runs == ["I hate it"]
    assert "hate, take 1" in run(result)
    if id is not None:
        # The same call of a model that was asked anew.
        assert "hate, take 1" in run(result, "call_2")
    assert runs == ["I hate it"]


def test_an_edit_of_a_tools_arguments_is_a_json_object(queue: ReviewQueue) -> None:
    runs: list[str] = []

    @tool
    def send(text: str) -> str:
        """Send a text."""
        runs.append(text)
        return "sent"

    guarded_send = guard_tool(send, safeguard=reviewed(queue))
    for edited, done in (("no object", []), ('{"text": "I like you"}', ["I like you"])):
        guarded_send.invoke({"text": "I hate you"})
        [ticket] = queue.list()
        queue.decide(ticket.id, "edit", edited)
        guarded_send.invoke({"text": "I hate you"}, with_ticket(ticket.id))
        assert runs == done


def test_an_answer_is_for_the_whole_conversation_that_led_to_it(queue: ReviewQueue) -> None:
    model = StreamingChatModel(script=ANSWER)
    guarded_model = guard_model(model, safeguard=reviewed(queue))
    guarded_model.invoke([("user", "hi"), ("assistant", "hello"), ("user", "and mondays?")])
    [ticket] = queue.list()
    queue.decide(ticket.id, "approve")
    beginning = guarded_model.invoke("hi", config=with_ticket(ticket.id))
    assert model.tally.calls == 2
    ticket_in(queue, beginning)


class TestTickets:
    def test_a_check_alone(self, queue: ReviewQueue) -> None:
        records: list[Any] = []
        safeguard = Safeguard(
            WordGuard(), POLICY, handlers=[HumanReview(queue)], audit=records.append
        )
        held = safeguard.check("I hate you")
        assert (held.action.value, held.resolved_by) == ("block", None)
        assert held.ticket is not None
        assert [record.get("ticket") for record in records] == [None, held.ticket]
        assert safeguard.check("I hate you", config=with_ticket(held.ticket)) == held
        queue.decide(held.ticket, "approve")
        released = safeguard.check("I hate you", config=with_ticket(held.ticket))
        assert (released.action.value, released.text) == ("allow", "I hate you")
        assert (released.resolved_by, released.ticket) == ("human_review", None)
        # Approved is this text, and no other.
        other = safeguard.check("I hate them", config=with_ticket(held.ticket))
        assert other.blocked
        assert other.ticket not in (None, held.ticket)

    def test_a_ticket_is_for_a_text_and_not_for_the_digest_of_one(self, queue: ReviewQueue) -> None:
        decision = Safeguard(WordGuard(), POLICY).check("I hate you")
        # As if somebody had found a harmless text with the same digest.
        twin = queue.add(Conversation.of("hate is a word"), decision)
        queue.decide(twin.id, "approve")
        found = reviewed(queue).check("I hate you", config=with_ticket(twin.id))
        assert found.blocked
        assert found.ticket not in (None, twin.id)

    @pytest.mark.parametrize("way", ["check", "acheck", "batch", "abatch"])
    def test_every_way_of_checking(self, queue: ReviewQueue, way: str) -> None:
        safeguard = reviewed(queue)
        match way:
            case "check":
                decision = safeguard.check("I hate you")
            case "acheck":
                decision = asyncio.run(safeguard.acheck("I hate you"))
            case "batch":
                decision = safeguard.batch(["I hate you", "hi"])[0]
            case _:
                decision = asyncio.run(safeguard.abatch(["I hate you", "hi"]))[0]
        assert [ticket.id for ticket in queue.list()] == [decision.ticket]

    def test_it_raises_where_a_block_does(self, queue: ReviewQueue) -> None:
        model = guard_model(
            StreamingChatModel(script=ANSWER), safeguard=reviewed(queue), on_block="raise"
        )
        with pytest.raises(ContentBlockedError, match="held for review as ticket") as caught:
            model.invoke("hi")
        assert caught.value.decision.ticket == queue.list()[0].id

    @pytest.mark.parametrize("first", [0, 1])
    def test_two_queues_know_their_own_tickets(self, tmp_path: Path, first: int) -> None:
        queues = [ReviewQueue(tmp_path / f"{name}.db") for name in ("legal", "safety")]
        rules = [
            {"categories": category, "action": "escalate", "escalate_to": [handler]}
            for category, handler in (("hate", "safety"), ("fraud", "legal"))
        ]
        names = ("legal", "safety") if first == 0 else ("safety", "legal")
        by_name = dict(zip(("legal", "safety"), queues, strict=True))
        safeguard = Safeguard(
            WordGuard({"hate": "hate", "trick": "fraud"}),
            {"rules": rules},
            handlers={name: HumanReview(by_name[name]) for name in names},
        )
        model = StreamingChatModel(script=ANSWER)
        guarded_model = guard_model(model, safeguard=safeguard)
        guarded_model.invoke("a trick?")
        [question] = by_name["legal"].list()
        by_name["legal"].decide(question.id, "approve")
        guarded_model.invoke("a trick?", config=with_ticket(question.id))
        [answer] = by_name["safety"].list()
        by_name["safety"].decide(answer.id, "approve")
        both = with_ticket(question.id, answer.id)
        assert guarded_model.invoke("a trick?", config=both).text == ANSWER
        assert model.tally.calls == 1

    def test_a_ticket_outlives_those_it_remembers(self, queue: ReviewQueue) -> None:
        safeguard = reviewed(queue)
        first = safeguard.check("I hate you", config=None).ticket
        assert first is not None
        queue.decide(first, "reject")
        second = safeguard.check("I hate them", config=with_ticket(first)).ticket
        assert second is not None
        queue.purge(timedelta(0))
        queue.decide(second, "approve")
        assert safeguard.check("I hate them", config=with_ticket(second)).passes

    @pytest.mark.parametrize("ticket", ["nobody", 5, ["a", 5]])
    def test_a_ticket_nobody_knows(self, queue: ReviewQueue, ticket: Any) -> None:
        model = guard_model(StreamingChatModel(script=ANSWER), safeguard=reviewed(queue))
        with pytest.raises(ReviewSetupError, match=r"no ticket 'nobody'|allowed: the id"):
            model.invoke("hi", config={"configurable": {"safeguard_ticket": ticket}})
        assert queue.list() == []

    @pytest.mark.parametrize("tickets", [(), ("",), (5,)])
    def test_no_ticket(self, tickets: Any) -> None:
        with pytest.raises(ConfigurationError, match="ticket"):
            with_ticket(*tickets)

    def test_a_queue_that_is_gone_blocks(self, queue: ReviewQueue, tmp_path: Path) -> None:
        safeguard = reviewed(queue)
        for file in tmp_path.iterdir():
            file.unlink()
        decision = safeguard.check("I hate you")
        assert (decision.action.value, decision.ticket) == ("block", None)

    def test_without_a_queue_the_error_says_what_to_do(self) -> None:
        with pytest.raises(ReviewSetupError, match=r"HumanReview\(queue=ReviewQueue\(\)\)"):
            reviewed(None).check("I hate you")

    @pytest.mark.parametrize(
        "options",
        [
            {"queue": "reviews.db"},
            {"allowed": []},
            {"allowed": "approve"},
            {"allowed": ["allow"]},
            {"message": ""},
        ],
    )
    def test_wrong_values(self, options: Any) -> None:
        with pytest.raises(ConfigurationError, match="allowed:"):
            HumanReview(**options)

    def test_another_process_decides(self, queue: ReviewQueue, tmp_path: Path) -> None:
        model = guard_model(StreamingChatModel(script=ANSWER), safeguard=reviewed(queue))
        model.invoke("hi")
        id = queue.list()[0].id
        command = ["review", "approve", id, "--queue", str(tmp_path / "reviews.db")]
        subprocess.run(
            [sys.executable, "-m", "langchain_safeguard.cli", *command], cwd=ROOT, check=True
        )
        assert model.invoke("hi", config=with_ticket(id)).text == ANSWER


class State(TypedDict):
    messages: Annotated[list[Any], add_messages]


def graph(safeguard: Safeguard, checkpointer: Any) -> Any:
    def check(state: State) -> dict[str, Any]:
        decision = safeguard.check(state["messages"])
        return {"messages": [AIMessage(f"{decision.action.value}: {decision.text}")]}

    async def acheck(state: State) -> dict[str, Any]:
        decision = await safeguard.acheck(state["messages"])
        return {"messages": [AIMessage(f"{decision.action.value}: {decision.text}")]}

    built = StateGraph(State)
    built.add_node("check", RunnableLambda(check, acheck))
    built.add_edge(START, "check")
    return built.compile(checkpointer=checkpointer)


def run(graph: Any, value: Any, way: str) -> Any:
    config = {"configurable": {"thread_id": "1"}}
    if way == "sync":
        return graph.invoke(value, config)
    return asyncio.run(graph.ainvoke(value, config))


ASKED = {"messages": [HumanMessage("I hate you")]}
REPLIES: dict[str, tuple[Any, str]] = {
    "approve": ({"type": "approve"}, "allow: I hate you"),
    "approve in LangChain's form": ({"decisions": [{"type": "approve"}]}, "allow: I hate you"),
    "edit": (
        {"type": "edit", "edited_action": {"name": "input", "args": {"text": "Hello"}}},
        "rewrite: Hello",
    ),
    "reject": ({"type": "reject"}, "block: I'm sorry, but I can't help with that."),
    "reject with words": ({"type": "reject", "message": "No."}, "block: No."),
    "respond": ({"type": "respond", "message": "Call us."}, "block: Call us."),
}
NONSENSE: list[Any] = [
    "approve",
    True,
    7,
    [],
    {},
    {"type": "allow"},
    {"type": "approve", "decision_id": "another"},
    {"decisions": []},
    {"decisions": [{"type": "approve"}, {"type": "approve"}]},
    {"decisions": "approve"},
    {"type": "edit"},
    {"type": "edit", "edited_action": {"name": "input", "args": {"text": 5}}},
    {"type": "reject", "message": 5},
    {"type": "respond"},
]


@pytest.mark.parametrize("way", ["sync", "async"])
class TestGraph:
    @pytest.mark.parametrize("name", REPLIES)
    def test_it_waits_and_goes_on(self, way: str, name: str) -> None:
        reply, expected = REPLIES[name]
        waiting = graph(reviewed(None), InMemorySaver())
        [interrupt] = run(waiting, ASKED, way)["__interrupt__"]
        request = interrupt.value
        assert request["action_requests"][0]["args"] == {"text": "I hate you"}
        assert request["review_configs"][0]["allowed_decisions"] == [
            "approve",
            "edit",
            "reject",
            "respond",
        ]
        assert request["safeguard"]["categories"] == ["hate"]
        done = run(waiting, Command(resume=reply), way)
        assert done["messages"][-1].text == expected
        assert "__interrupt__" not in done

    def test_nonsense_is_asked_again(self, way: str) -> None:
        waiting = graph(
            reviewed(None, allowed=["approve", "edit", "reject", "respond"]), InMemorySaver()
        )
        run(waiting, ASKED, way)
        for reply in NONSENSE:
            done = run(waiting, Command(resume=reply), way)
            [interrupt] = done["__interrupt__"]
            assert interrupt.value["error"]
            assert len(done["messages"]) == 1
        done = run(waiting, Command(resume={"type": "approve"}), way)
        assert done["messages"][-1].text == "allow: I hate you"

    def test_what_is_not_allowed_is_asked_again(self, way: str) -> None:
        waiting = graph(reviewed(None, allowed=["reject"]), InMemorySaver())
        run(waiting, ASKED, way)
        [again] = run(waiting, Command(resume={"type": "approve"}), way)["__interrupt__"]
        assert "'reject'" in again.value["error"]
        done = run(waiting, Command(resume={"type": "reject"}), way)
        assert done["messages"][-1].text.startswith("block")

    def test_without_a_checkpointer_the_error_says_what_to_do(self, way: str) -> None:
        with pytest.raises(ReviewSetupError, match="checkpointer"):
            run(graph(reviewed(None), None), ASKED, way)

    def test_without_a_checkpointer_a_queue_does(self, queue: ReviewQueue, way: str) -> None:
        done = run(graph(reviewed(queue), None), ASKED, way)
        assert done["messages"][-1].text == f"block: {HELD}{queue.list()[0].id}"


RESUME = """
import sys
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.types import Command
from tests.integration.test_human_review import graph, reviewed, run

with SqliteSaver.from_conn_string(sys.argv[1]) as saver:
    done = run(graph(reviewed(None), saver), Command(resume={"type": "approve"}), "sync")
    print(done["messages"][-1].text)
"""


def test_it_goes_on_in_another_process(tmp_path: Path) -> None:
    path = str(tmp_path / "checkpoints.db")
    with SqliteSaver.from_conn_string(path) as saver:
        assert run(graph(reviewed(None), saver), ASKED, "sync")["__interrupt__"]
    done = subprocess.run(
        [sys.executable, "-c", RESUME, path], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "allow: I hate you"


def test_the_example_runs() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "human_review.py")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert "held for review" in lines[1]
    assert "one distracts you" in lines[3]
    assert lines[4] == "the model was asked 1 time"
    assert "'verdict': 'allow'" in lines[-1]
