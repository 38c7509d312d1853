"""Whatever a step of a graph asks, in whatever order: nobody's answer goes to another question."""

from __future__ import annotations

import contextvars
import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, interrupt

from langchain_safeguard import Safeguard, guard_model, guard_tool
from tests.chat_models import StreamingChatModel
from tests.word_guard import WordGuard

SAYS = st.lists(st.booleans(), min_size=1, max_size=3)
STEP = st.one_of(
    st.just(("own",)),
    st.tuples(st.just("model"), SAYS),
    st.tuples(st.just("tool"), SAYS, st.sampled_from(["own", "same", None])),
    st.tuples(st.just("input"), st.booleans()),
)


class Program:
    """A step of a graph that does what it is told to, and remembers who was asked what.

    Args:
        steps: What it does: a model or a tool says something unsafe, or not, each time it is
            called; a question of its own; something a user wrote.
        together: Whether it does all of it at once, in threads.
    """

    def __init__(self, steps: list[Any], together: bool) -> None:
        self.together = together
        self.approved: set[str] = set()
        self.said: dict[int, int] = {}
        self.results: list[str] = []
        self.steps = steps
        rule = {"categories": ["indiscriminate_weapons"], "action": "escalate"}
        self.safeguard = Safeguard(WordGuard(), {"rules": [rule]}, handlers=[self.person])

    def person(self, escalation: Any) -> Any:
        return interrupt({"text": escalation.text})

    def says(self, at: int, unsafe: list[bool]) -> str:
        number = self.said[at] = self.said.get(at, -1) + 1
        kind = "bomb" if unsafe[number % len(unsafe)] else "bread"
        return f"step {at} makes a {kind}, for time {number}"

    def step(self, at: int, step: Any) -> str:
        match step:
            case ("own",):
                return f"own {interrupt({'own': at})}"
            case ("input", unsafe):
                text = f"user {at} wants a {'bomb' if unsafe else 'loaf'}"
                passes = self.safeguard.check(text).passes
                return text if passes else "refused"
            case ("model", unsafe):
                model = StreamingChatModel(script=lambda _: self.says(at, unsafe))
                return guard_model(model, safeguard=self.safeguard).invoke(f"prompt {at}").text
            case ("tool", unsafe, id):

                @tool
                def note(text: str) -> str:
                    """Make something."""
                    return self.says(at, unsafe)

                note.name = f"note{at}"
                guarded, arguments = guard_tool(note, safeguard=self.safeguard), {"text": "x"}
                if id is None:
                    return str(guarded.invoke(arguments))
                id = f"c{at}" if id == "own" else "c"
                call = {"name": note.name, "args": arguments, "id": id, "type": "tool_call"}
                result: str = guarded.invoke(call).text
                return result
        raise AssertionError(step)

    def released(self, at: int) -> str:
        result = self.step(at, self.steps[at])
        # At once: a step may show it to somebody, though it is begun anew afterwards.
        assert "bomb" not in result or result in self.approved
        return result

    def node(self, state: Any) -> Any:
        places = range(len(self.steps))
        if not self.together:
            self.results = [*map(self.released, places)]
            return {"messages": "done"}
        with ThreadPoolExecutor() as pool:
            run = [pool.submit(contextvars.copy_context().run, self.released, at) for at in places]
        self.results = [each.result() for each in run]
        return {"messages": "done"}


@settings(max_examples=100, deadline=None)
@given(
    st.lists(STEP, min_size=1, max_size=5),
    st.lists(st.booleans(), min_size=1, max_size=6),
    st.booleans(),
)
def test_no_answer_goes_to_another_question(
    steps: list[Any], approvals: list[bool], together: bool
) -> None:
    # LangGraph counts what a step asks by itself, which needs an order.
    together = together and ("own",) not in steps
    program = Program(steps, together)
    builder = StateGraph(MessagesState)
    builder.add_node("node", program.node)
    builder.add_edge(START, "node")
    graph = builder.compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    decides = itertools.cycle(approvals)
    state = graph.invoke({"messages": [("user", "hi")]}, config)
    rounds = 0
    while "__interrupt__" in state:
        rounds += 1
        assert rounds < 40
        [question] = state["__interrupt__"]
        # What the step asks by itself is answered with a word that a person's handler takes, too.
        answer = "allow" if "own" in question.value or next(decides) else "block"
        if "text" in question.value and answer == "allow":
            program.approved.add(question.value["text"])
        state = graph.invoke(Command(resume=answer), config)
    for at, (step, result) in enumerate(zip(steps, program.results, strict=True)):
        if step == ("own",):
            assert result == "own allow"
        if step[0] == "tool" or (step[0] == "model" and ("own",) not in steps):
            # It runs once, whatever else is asked beside it.
            assert program.said[at] == 0
