"""Several things are done in one step of a graph: each is done once, and gets its own decision."""

from __future__ import annotations

import asyncio
import contextvars
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.func import entrypoint, task
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, RetryPolicy, Send, interrupt

from langchain_safeguard import (
    HeldDatabase,
    HeldResults,
    HumanReview,
    OutputGuard,
    guard_model,
    guard_tool,
)
from langchain_safeguard.holding.held import Held
from langchain_safeguard.holding.waiting import LOST_MESSAGE
from langchain_safeguard.middleware import SafeguardMiddleware
from tests.agents import HI, REFUSAL, UNSAFE, WAYS, contents, notebook
from tests.chat_models import StreamingChatModel
from tests.integration.test_held import ASYNC, agent, counting, graph, people, thread

SAVERS = pytest.mark.parametrize("saver", ["memory", "sqlite"])


class Talk:
    """A run of a graph, and the person whom it asks.

    Args:
        built: The graph.
        way: How it is run.
        says: What the person says about a question's value; they approve if left out.
    """

    def __init__(
        self, built: Any, way: str = "invoke", says: Callable[[Any], Any] = lambda _: "allow"
    ) -> None:
        self.built = built
        self.way = way
        self.says = says
        self.asked: list[Any] = []

    def go(self, value: Any = HI, config: Any = None) -> Any:
        """Run until nothing is asked any more, and return the state."""
        config = config or thread()
        state = WAYS[self.way](self.built, value, config)
        while "__interrupt__" in state:
            assert len(self.asked) < 20
            [question] = state["__interrupt__"]
            self.asked.append(question.value)
            answer = {question.id: self.says(question.value)}
            state = WAYS[self.way](self.built, Command(resume=answer), config)
        return state


def together(calls: list[Callable[[], Any]]) -> list[Any]:
    """Make calls in threads, as LangGraph's nodes do."""
    with ThreadPoolExecutor() as pool:
        made = [pool.submit(contextvars.copy_context().run, call) for call in calls]
    return [each.result() for each in made]


def speaking() -> StreamingChatModel:
    """Make a model that says something unsafe about everything but bread, and how often it was."""
    times: dict[str, int] = {}

    def script(messages: Any) -> str:
        about = messages[-1].text
        times[about] = times.get(about, 0) + 1
        return f"The {'loaf' if 'bread' in about else 'bomb'} of {about}, time {times[about]}."

    return StreamingChatModel(script=script)


def texts(answers: list[Any]) -> dict[str, str]:
    return {"messages": " | ".join(getattr(answer, "text", answer) for answer in answers)}


# --- models and chains ---


@pytest.mark.parametrize("way", WAYS)
@SAVERS
def test_answers_that_are_asked_for_at_once_wait_one_after_the_other(
    way: str, saver: str, tmp_path: Path
) -> None:
    model = speaking()
    says = {"x": "allow", "y": "block", "z": "allow"}
    safeguard = people(handlers=[lambda escalation: interrupt(escalation.text)])
    guarded = guard_model(model, safeguard=safeguard)

    def node(state: Any) -> Any:
        return texts(together([lambda text=text: guarded.invoke(text) for text in says]))

    async def anode(state: Any) -> Any:
        return texts(await asyncio.gather(*(guarded.ainvoke(text) for text in says)))

    builder = StateGraph(MessagesState)
    builder.add_node("node", anode if way.startswith("a") else node)
    builder.add_edge(START, "node")

    def answer(text: str) -> str:
        return next(says[name] for name in says if f"bomb of {name}" in text)

    said = f"The bomb of x, time 1. | {REFUSAL} | The bomb of z, time 1."
    if saver == "memory":
        talk = Talk(builder.compile(checkpointer=InMemorySaver()), way, answer)
        state = talk.go()
    elif way.startswith("a"):
        state, talk = asyncio.run(_in_sqlite(builder, tmp_path / "threads.db", answer))
    else:
        connection = sqlite3.connect(tmp_path / "threads.db", check_same_thread=False)
        talk = Talk(builder.compile(checkpointer=SqliteSaver(connection)), way, answer)
        state = talk.go()
        connection.close()
    assert state["messages"][-1].text == said
    assert len(talk.asked) == 3
    assert model.tally.calls == 3


async def _in_sqlite(builder: Any, path: Path, answer: Callable[[str], str]) -> tuple[Any, Talk]:
    async with AsyncSqliteSaver.from_conn_string(str(path)) as saver:
        built = builder.compile(checkpointer=saver)
        talk = Talk(built)
        state = await built.ainvoke(HI, thread())
        while "__interrupt__" in state:
            [question] = state["__interrupt__"]
            talk.asked.append(question.value)
            state = await built.ainvoke(Command(resume=answer(question.value)), thread())
        return state, talk


@ASYNC
@pytest.mark.parametrize("kind", ["model", "chain"])
def test_batches_wait_too(kind: str, is_async: bool) -> None:
    model, safeguard = speaking(), people()
    guarded: Any = guard_model(model, safeguard=safeguard)
    if kind == "chain":
        guarded = model | OutputGuard(safeguard=safeguard)
    about = ["x", "bread", "y", "y"]

    async def anode(state: Any) -> Any:
        return texts(await guarded.abatch(about))

    built = graph(lambda state: texts(guarded.batch(about)), anode if is_async else None)
    talk = Talk(built, "ainvoke" if is_async else "invoke")
    said = talk.go()["messages"][-1].text.split(" | ")
    assert said[:2] == ["The bomb of x, time 1.", "The loaf of bread, time 1."]
    # Of two that ask the same it cannot be told which is which.
    assert sorted(said[2:]) == ["The bomb of y, time 1.", "The bomb of y, time 2."]
    assert len(talk.asked) == 3
    assert model.tally.calls == 4


def test_an_answer_in_a_batch_that_is_gone_is_refused() -> None:
    model, saver = speaking(), InMemorySaver()

    def built() -> Any:
        chain = model | OutputGuard(safeguard=people())
        builder = StateGraph(MessagesState)
        builder.add_node("node", lambda state: texts(chain.batch(["x", "y"])))
        builder.add_edge(START, "node")
        return builder.compile(checkpointer=saver)

    built().invoke(HI, thread())
    state = built().invoke(Command(resume="allow"), thread())
    # The other one was nobody's concern yet.
    assert [value.value["side"] for value in state["__interrupt__"]] == ["output"]
    state = built().invoke(Command(resume="allow"), thread())
    assert state["messages"][-1].text == f"{LOST_MESSAGE} | {LOST_MESSAGE}"


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_the_order_may_be_another_when_the_step_begins_anew(way: str) -> None:
    model, turns = speaking(), iter([["x", "y"], ["y", "x"]] * 4)
    guarded = guard_model(model, safeguard=people())

    def node(state: Any) -> Any:
        said = {text: guarded.invoke(text).text for text in next(turns)}
        return texts([said["x"], said["y"]])

    async def anode(state: Any) -> Any:
        said = {text: (await guarded.ainvoke(text)).text for text in next(turns)}
        return texts([said["x"], said["y"]])

    talk = Talk(graph(node, anode if way == "ainvoke" else None), way)
    WAYS[way](talk.built, HI, thread())
    state = talk.go(None)
    assert state["messages"][-1].text == "The bomb of x, time 1. | The bomb of y, time 1."
    assert model.tally.calls == 2


def test_what_led_to_the_answer_a_person_saw_is_not_said_anew() -> None:
    # A model that never says the same twice: if the plan were another one, so would the prompt be.
    model = StreamingChatModel(
        script=lambda messages: (
            f"Plan number {model.tally.calls}."
            if messages[-1].text == "plan"
            else f"The bomb of {messages[-1].text}"
        )
    )
    guarded = guard_model(model, safeguard=people())

    def node(state: Any) -> Any:
        plan = guarded.invoke("plan").text
        return texts([plan, guarded.invoke(plan).text])

    talk = Talk(graph(node))
    assert talk.go()["messages"][-1].text == "Plan number 1. | The bomb of Plan number 1."
    assert len(talk.asked) == 1
    assert model.tally.calls == 2


def test_a_slow_answer_is_not_left_alone_when_another_one_interrupts() -> None:
    quick, slow = speaking(), speaking()
    slow.delay = 0.2
    safeguard = people()

    async def anode(state: Any) -> Any:
        models = (guard_model(model, safeguard=safeguard) for model in (quick, slow, slow))
        calls = (
            model.ainvoke(text) for model, text in zip(models, ["x", "y", "bread"], strict=True)
        )
        return texts(await asyncio.gather(*calls))

    # Each run has an event loop of its own: what is left over when it ends is cancelled.
    state = Talk(graph(None, anode), "ainvoke").go()
    said = "The bomb of x, time 1. | The bomb of y, time 1. | The loaf of bread, time 1."
    assert state["messages"][-1].text == said
    assert (quick.tally.calls, slow.tally.calls, slow.tally.closed_early) == (1, 2, 0)


class Slow(HeldResults):
    """A store that keeps what it holds from others until it is told to go on."""

    def __init__(self, wait: Callable[[], None]) -> None:
        super().__init__()
        self.wait = wait

    def hold(self, key: str, held: Held) -> None:
        self.wait()
        super().hold(key, held)


@pytest.mark.parametrize("slow", ["handler", "store"])
def test_nobody_waits_for_a_question_that_is_given_up(slow: str) -> None:
    asking, given_up = threading.Event(), threading.Event()

    def wait() -> None:
        asking.set()
        given_up.wait(30)

    def person(escalation: Any) -> Any:
        try:
            return interrupt(escalation.text)
        finally:
            if slow == "handler":
                wait()

    held = Slow(wait) if slow == "store" else HeldResults()
    guarded = guard_model(speaking(), safeguard=people(handlers=[person], held=held))

    async def one() -> Any:
        call = asyncio.ensure_future(guarded.ainvoke("x"))
        await asyncio.to_thread(asking.wait, 30)
        call.cancel()
        await asyncio.wait([call])
        given_up.set()
        return "given up"

    async def other() -> Any:
        await asyncio.to_thread(asking.wait, 30)
        return await guarded.ainvoke("y")

    async def anode(state: Any) -> Any:
        return texts(await asyncio.gather(one(), other()))

    talk = Talk(graph(None, anode), "ainvoke")
    state = WAYS["ainvoke"](talk.built, HI, thread())
    assert [question.value for question in state["__interrupt__"]] == ["The bomb of y, time 1."]


def test_sync_calls_in_async_code_do_not_wait_for_each_other() -> None:
    guarded = guard_model(speaking(), safeguard=people())

    async def at_once(text: str) -> Any:
        return guarded.invoke(text)

    async def anode(state: Any) -> Any:
        calls = [guarded.ainvoke("x"), at_once("y"), guarded.ainvoke("z"), at_once("w")]
        return texts(await asyncio.gather(*calls))

    state = Talk(graph(None, anode), "ainvoke").go()
    said = state["messages"][-1].text.split(" | ")
    # A sync call cannot wait for those beside it, so that a model may be asked anew.
    assert [text.partition(",")[0] for text in said] == [f"The bomb of {name}" for name in "xyzw"]


# --- tools ---


def calls(*ids: str) -> Any:
    """Make a state that asks for one call of `note` for each id; each second text is unsafe."""
    made: list[Any] = [
        {"name": "note", "args": {"text": text}, "id": id, "type": "tool_call"}
        for id, text in zip(ids, ["bread", "hate", "bread", "a bomb"], strict=True)
    ]
    return {"messages": [HumanMessage("hi"), AIMessage("", tool_calls=made)]}


def tool_node(note: Any) -> Any:
    builder = StateGraph(MessagesState)
    builder.add_node("tools", ToolNode([note]))
    builder.add_edge(START, "tools")
    return builder.compile(checkpointer=InMemorySaver())


NOTED = ["noted bread", "noted hate", "noted bread", "noted a bomb"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("ids", [("1", "2", "3", "4"), ("1", "1", "1", "1"), ("", "", "", "")])
def test_each_call_runs_once_whatever_its_id(way: str, ids: tuple[str, ...]) -> None:
    note, written = notebook()
    talk = Talk(tool_node(guard_tool(note, safeguard=people(), input=False)), way)
    state = talk.go(calls(*ids))
    assert [message.text for message in state["messages"][2:]] == NOTED
    assert sorted(written) == ["a bomb", "bread", "bread", "hate"]
    assert len(talk.asked) == 2


@ASYNC
def test_calls_without_an_id_run_once(is_async: bool) -> None:
    note, written = notebook()
    guarded, said = guard_tool(note, safeguard=people(), input=False), ["bread", "hate"] * 2

    async def anode(state: Any) -> Any:
        return texts([await guarded.ainvoke({"text": text}) for text in said])

    def node(state: Any) -> Any:
        return texts([guarded.invoke({"text": text}) for text in said])

    talk = Talk(graph(node, anode if is_async else None), "ainvoke" if is_async else "invoke")
    assert talk.go()["messages"][-1].text == " | ".join(f"noted {text}" for text in said)
    assert written == said
    assert len(talk.asked) == 2


def test_a_tool_that_takes_its_time_is_waited_for() -> None:
    ran: list[str] = []

    @tool
    async def note(text: str) -> str:
        """Write a note."""
        ran.append(f"begins {text}")
        await asyncio.sleep(0.2 if text == "bread" else 0)
        ran.append(f"has written {text}")
        return f"noted {text}"

    talk = Talk(tool_node(guard_tool(note, safeguard=people(), input=False)), "ainvoke")
    state = talk.go(calls("1", "2", "3", "4"))
    assert [message.text for message in state["messages"][2:]] == NOTED
    assert len(ran) == 8


def test_no_tool_begins_once_the_step_is_interrupted() -> None:
    note, written = notebook()
    safeguard, asked = people(), asyncio.Event()
    guarded = guard_model(speaking(), safeguard=safeguard)
    noting = guard_tool(note, safeguard=safeguard, input=False)

    async def two(state: Any) -> str:
        first = await noting.ainvoke({"text": "one"})
        await asyncio.sleep(0.2)
        return f"{first} {await noting.ainvoke({'text': 'two'})}"

    async def anode(state: Any) -> Any:
        asked.clear()
        return texts(await asyncio.gather(two(state), guarded.ainvoke("x")))

    talk = Talk(graph(None, anode), "ainvoke")
    assert talk.go()["messages"][-1].text == "noted one noted two | The bomb of x, time 1."
    assert written == ["one", "two"]


def noting(note: Any, saver: Any, step: Any) -> Any:
    """Make a graph whose step calls a guarded tool, as a process that has just begun would."""
    guarded = guard_tool(note, safeguard=people(), input=False)
    builder = StateGraph(MessagesState)
    builder.add_node("node", lambda state: step(guarded))
    builder.add_edge(START, "node")
    return builder.compile(checkpointer=saver)


def test_a_tool_whose_result_nobody_asked_about_is_not_run_again_in_another_process() -> None:
    saver, (note, written) = InMemorySaver(), notebook()

    def step(guarded: Any) -> Any:
        return texts([guarded.invoke({"text": "bread"}), interrupt("Shall I go on?")])

    noting(note, saver, step).invoke(HI, thread())
    state = noting(note, saver, step).invoke(Command(resume="yes"), thread())
    told, said = state["messages"][-1].text.split(" | ")
    assert "was lost" in told and "not called again" in told
    assert said == "yes"
    assert written == ["bread"]


def test_what_was_done_is_held_for_as_long_as_the_step_waits(tmp_path: Path) -> None:
    # What is decided about is deleted at once: what only waits beside it may not be.
    held = HeldDatabase(tmp_path / "held.db", keep=timedelta(0))
    note, written = notebook()
    safeguard, model = people(held=held), speaking()
    guarded = guard_tool(note, safeguard=safeguard, input=False)

    def node(state: Any) -> Any:
        said = guard_model(model, safeguard=safeguard).invoke("x")
        return texts([guarded.invoke({"text": "bread"}), guarded.invoke({"text": "hate"}), said])

    talk = Talk(graph(node))
    said = "noted bread | noted hate | The bomb of x, time 1."
    assert talk.go()["messages"][-1].text == said
    assert written == ["bread", "hate"]
    assert model.tally.calls == 1
    held.close()


@ASYNC
def test_in_a_step_for_each_thing_a_tool_runs_once_before_the_step_asks(is_async: bool) -> None:
    note, written = notebook()
    guarded = guard_tool(note, safeguard=people(), input=False)

    def work(state: Any) -> Any:
        return {"messages": f"{guarded.invoke({'text': state['text']})}, {interrupt('on?')}"}

    async def awork(state: Any) -> Any:
        return {"messages": f"{await guarded.ainvoke({'text': state['text']})}, {interrupt('on?')}"}

    builder = StateGraph(MessagesState)
    builder.add_node("start", lambda state: {})
    builder.add_node("work", awork if is_async else work)  # type: ignore[arg-type]
    builder.add_edge(START, "start")
    each = [Send("work", {"text": text}) for text in ("bread", "hate")]
    builder.add_conditional_edges("start", lambda state: each, ["work"])
    built = builder.compile(checkpointer=InMemorySaver())
    way = WAYS["ainvoke" if is_async else "invoke"]
    state = way(built, HI, thread())
    while "__interrupt__" in state:
        answers = {each.id: "allow" for each in state["__interrupt__"]}
        state = way(built, Command(resume=answers), thread())
    assert [m.text for m in state["messages"][1:]] == ["noted bread, allow", "noted hate, allow"]
    assert sorted(written) == ["bread", "hate"]


def test_tasks_of_the_functional_api_wait_too() -> None:
    note, written = notebook()
    model, safeguard = speaking(), people()
    guarded = guard_tool(note, safeguard=safeguard, input=False)

    @task
    def one(text: str) -> str:
        return f"{guarded.invoke({'text': text})}, {interrupt('on?')}"

    @entrypoint(checkpointer=InMemorySaver())
    def work(text: str) -> str:
        said = guard_model(model, safeguard=safeguard).invoke(text).text
        return f"{said} {one(text).result()}"

    state: Any = work.invoke("x", thread())
    questions = 0
    while isinstance(state, dict) and "__interrupt__" in state:
        questions += 1
        state = work.invoke(Command(resume="allow"), thread())
    assert state == "The bomb of x, time 1. noted x, allow"
    assert (questions, written, model.tally.calls) == (2, ["x"], 1)


def test_a_step_that_fails_and_is_tried_again_does_nothing_twice() -> None:
    note, written = notebook()
    model, safeguard, fails = speaking(), people(), [1, 1]
    guarded = guard_tool(note, safeguard=safeguard, input=False)

    def node(state: Any) -> Any:
        said = [guarded.invoke({"text": "bread"}), guard_model(model, safeguard=safeguard)]
        said[1] = said[1].invoke("x")
        if fails:
            fails.pop()
            raise ConnectionError
        return texts(said)

    builder = StateGraph(MessagesState)
    retry = RetryPolicy(max_attempts=4, initial_interval=0.01)
    builder.add_node("node", node, retry_policy=retry)
    builder.add_edge(START, "node")
    talk = Talk(builder.compile(checkpointer=InMemorySaver()))
    assert talk.go()["messages"][-1].text == "noted bread | The bomb of x, time 1."
    assert (len(talk.asked), written, model.tally.calls) == (1, ["bread"], 1)


def test_of_many_who_resume_at_once_none_runs_the_tool_again() -> None:
    note, written = notebook()
    safeguard = people()

    built = tool_node(guard_tool(note, safeguard=safeguard, input=False))
    asking = calls("1", "2", "3", "4")
    asking["messages"][-1].tool_calls = asking["messages"][-1].tool_calls[1:2]
    built.invoke(asking, thread())
    together([lambda: built.invoke(Command(resume="allow"), thread())] * 4)
    assert written == ["hate"]


# --- handlers ---


def test_each_handler_gets_the_answers_to_its_own_questions() -> None:
    def first(escalation: Any) -> Any:
        return None if interrupt("first") == "next" else "block"

    def second(escalation: Any) -> Any:
        while (answer := interrupt("second")) not in ("allow", "block"):
            pass
        return answer

    model = speaking()
    guarded = guard_model(model, safeguard=people(handlers=[first, second]))
    answers = iter(["next", "hm", "well", "allow"])
    talk = Talk(graph(lambda state: texts([guarded.invoke("x")])), says=lambda value: next(answers))
    assert talk.go()["messages"][-1].text == "The bomb of x, time 1."
    assert talk.asked == ["first", "second", "second", "second"]
    assert model.tally.calls == 1


def test_a_handler_that_catches_its_own_interrupt_leaves_no_question_behind() -> None:
    def careless(escalation: Any) -> Any:
        try:
            return interrupt("about the answer?")
        except Exception:
            return "block"

    guarded = guard_model(speaking(), safeguard=people(handlers=[careless]))
    talk = Talk(graph(lambda state: texts([guarded.invoke("x"), interrupt("own?")])))
    # What the step asks is answered, and that answer approves nothing else.
    assert talk.go()["messages"][-1].text == f"{REFUSAL} | allow"
    assert talk.asked == ["own?"]


@ASYNC
def test_a_handler_may_be_a_graph_that_asks(is_async: bool) -> None:
    builder = StateGraph(MessagesState)
    builder.add_node("ask", lambda state: {"messages": interrupt("by a graph")})
    builder.add_edge(START, "ask")
    asking = builder.compile()

    class Person:
        def __call__(self, escalation: Any) -> Any:
            return asking.invoke({"messages": []})["messages"][-1].text

        async def acall(self, escalation: Any) -> Any:
            return (await asking.ainvoke({"messages": []}))["messages"][-1].text

    model = counting()
    guarded = guard_model(model, safeguard=people(handlers=[Person()]))

    async def anode(state: Any) -> Any:
        return texts([await guarded.ainvoke("x")])

    built = graph(lambda state: texts([guarded.invoke("x")]), anode if is_async else None)
    talk = Talk(built, "ainvoke" if is_async else "invoke")
    assert talk.go()["messages"][-1].text == "Take bomb number 1."
    assert talk.asked == ["by a graph"]
    assert model.tally.calls == 1


@ASYNC
def test_what_a_step_asks_beside_it_gets_its_own_answers(is_async: bool) -> None:
    guarded = guard_model(speaking(), safeguard=people())

    async def own(number: int) -> str:
        return str(interrupt(f"own {number}"))

    async def anode(state: Any) -> Any:
        return texts(await asyncio.gather(guarded.ainvoke("x"), own(1), guarded.ainvoke("y")))

    def node(state: Any) -> Any:
        asks = [lambda: guarded.invoke("x"), lambda: str(interrupt("own 1"))]
        return texts(together([*asks, lambda: guarded.invoke("y")]))

    def says(value: Any) -> Any:
        return "fine" if isinstance(value, str) else "allow"

    way = "ainvoke" if is_async else "invoke"
    talk = Talk(graph(node, anode if is_async else None), way, says)
    said = talk.go()["messages"][-1].text.split(" | ")
    # LangGraph's own interrupt does not wait either.
    assert [text.partition(",")[0] for text in said] == ["The bomb of x", "fine", "The bomb of y"]


@ASYNC
def test_nonsense_about_one_of_several_is_answered_by_its_own_question(is_async: bool) -> None:
    model = speaking()
    guarded = guard_model(model, safeguard=people(handlers=[HumanReview()]))

    async def anode(state: Any) -> Any:
        return texts(await asyncio.gather(*(guarded.ainvoke(text) for text in "xyz")))

    def node(state: Any) -> Any:
        return texts(together([lambda text=text: guarded.invoke(text) for text in "xyz"]))

    last = {"x": {"type": "approve"}, "y": {"type": "reject", "message": "No."}}
    replies = {text: iter(["yes", 7, last.get(text, last["x"])]) for text in "xyz"}

    def about(request: Any) -> str:
        return str(request["action_requests"][0]["args"]["text"].split()[3][0])

    def says(request: Any) -> Any:
        return next(replies[about(request)])

    talk = Talk(graph(node, anode if is_async else None), "ainvoke" if is_async else "invoke", says)
    said = talk.go()["messages"][-1].text
    assert said == "The bomb of x, time 1. | No. | The bomb of z, time 1."
    for text in "xyz":
        errors = ["error" in request for request in talk.asked if about(request) == text]
        assert errors == [False, True, True]
    assert model.tally.calls == 3


@ASYNC
def test_a_graph_inside_of_a_step_that_asks_before_and_after_it(is_async: bool) -> None:
    model = speaking()
    guarded = guard_model(model, safeguard=people())

    async def ainner(state: Any) -> Any:
        return texts([await guarded.ainvoke("inner")])

    async def aouter(state: Any) -> Any:
        said = [await guarded.ainvoke("before")]
        said.append((await inside.ainvoke(HI))["messages"][-1])
        return texts([*said, await guarded.ainvoke("after")])

    def inner(state: Any) -> Any:
        return texts([guarded.invoke("inner")])

    def outer(state: Any) -> Any:
        said = [guarded.invoke("before"), inside.invoke(HI)["messages"][-1]]
        return texts([*said, guarded.invoke("after")])

    builder = StateGraph(MessagesState)
    builder.add_node("inner", ainner if is_async else inner)  # type: ignore[arg-type]
    builder.add_edge(START, "inner")
    inside = builder.compile()
    talk = Talk(graph(outer, aouter if is_async else None), "ainvoke" if is_async else "invoke")
    said = [f"The bomb of {place}, time 1." for place in ("before", "inner", "after")]
    assert talk.go()["messages"][-1].text == " | ".join(said)
    assert (len(talk.asked), model.tally.calls) == (3, 3)


def test_a_step_that_says_much_does_not_push_out_what_waits_elsewhere() -> None:
    held, model = HeldResults(most=200), speaking()
    guarded = guard_model(model, safeguard=people(held=held))

    def node(state: Any) -> Any:
        text = state["messages"][-1].text
        much = [guarded.invoke(f"bread {n}") for n in range(150 if text == "much" else 0)]
        return texts([f"{len(much)}", guarded.invoke(text)])

    built = graph(node)
    built.invoke(HI, thread("1"))
    for name in ("2", "3"):
        built.invoke({"messages": [("user", "much")]}, thread(name))
    state = built.invoke(Command(resume="allow"), thread("1"))
    assert state["messages"][-1].text == "0 | The bomb of hi, time 1."


# --- going back ---


def test_going_back_asks_anew_and_an_old_answer_stays() -> None:
    model, (note, _) = speaking(), notebook()
    safeguard = people()
    guarded = guard_tool(note, safeguard=safeguard, input=False)

    def node(state: Any) -> Any:
        answer = guard_model(model, safeguard=safeguard).invoke("x")
        return texts([guarded.invoke({"text": "bread"}), answer])

    built = graph(node)
    Talk(built).go()
    [before] = [each for each in built.get_state_history(thread()) if each.next == ("node",)]
    state = built.invoke(None, before.config)
    assert "__interrupt__" in state and "bomb" not in repr(contents(state))
    state = built.invoke(Command(resume="block"), thread())
    assert state["messages"][-1].text == f"noted bread | {REFUSAL}"
    # LangGraph keeps the first answer to a question.
    state = built.invoke(Command(resume="block"), before.config)
    assert state["messages"][-1].text == "noted bread | The bomb of x, time 1."


def test_an_answer_goes_to_no_other_branch() -> None:
    guarded = guard_model(speaking(), safeguard=people())
    built = graph(lambda state: texts([guarded.invoke(state["messages"][-1].text)]))
    built.invoke(HI, thread())
    place = built.get_state(thread()).config
    other = built.update_state(place, {"messages": [HumanMessage("x")]}, as_node=START)
    state = built.invoke(Command(resume="allow"), other)
    assert state["messages"][-1].text == REFUSAL
    state = built.invoke(Command(resume="allow"), place)
    assert state["messages"][-1].text == "The bomb of hi, time 1."


# --- two middlewares ---


@ASYNC
@pytest.mark.parametrize("mode", ["values", "updates", "messages", "custom", "debug"])
def test_two_middlewares_of_an_agent_that_streams_ask_one_after_the_other(
    mode: Any, is_async: bool
) -> None:
    model = StreamingChatModel(script=UNSAFE)
    guards = {"a": {"bomb": "indiscriminate_weapons"}, "b": {"powders": "hate"}}
    around = [
        SafeguardMiddleware(safeguard=people(words), name=name, check_every=4)
        for name, words in guards.items()
    ]
    built = agent(model, around=around)

    async def heard(value: Any) -> str:
        parts = built.astream(value, thread(), stream_mode=mode, subgraphs=True)
        return repr([part async for part in parts])

    def run(value: Any) -> str:
        if is_async:
            return asyncio.run(heard(value))
        return repr([*built.stream(value, thread(), stream_mode=mode, subgraphs=True)])

    before = [run(HI), run(Command(resume="allow"))]
    assert not any("bomb" in part for part in before)
    assert built.get_state(thread()).interrupts
    run(Command(resume="allow"))
    state = built.get_state(thread())
    assert not state.interrupts
    assert contents(state.values) == [("human", "hi"), ("ai", UNSAFE)]
    assert model.tally.calls == 1


@pytest.mark.parametrize("answers", [("block",), ("allow", "block")])
def test_either_person_may_reject(answers: tuple[str, ...]) -> None:
    around = [
        SafeguardMiddleware(safeguard=people({"bomb": "indiscriminate_weapons"}), name="a"),
        SafeguardMiddleware(safeguard=people({"powders": "hate"}), name="b"),
    ]
    built = agent(UNSAFE, around=around)
    run = lambda value: [*built.stream(value, thread(), stream_mode="messages")]  # noqa: E731
    run(HI)
    for answer in answers:
        run(Command(resume=answer))
    assert contents(built.get_state(thread()).values)[-1] == ("ai", REFUSAL)
