"""Whatever a step of a graph asks, in whatever order: nobody's answer goes to another question."""

from __future__ import annotations

import itertools
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
    st.tuples(st.just("tool"), SAYS),
    st.tuples(st.just("input"), st.booleans()),
)


class Program:
    """A step of a graph that does what it is told to, and remembers who was asked what.

    Args:
        steps: What it does: a model or a tool says something unsafe, or not, each time it is
            called; a question of its own; something a user wrote.
    """

    def __init__(self, steps: list[Any]) -> None:
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
            case ("tool", unsafe):

                @tool
                def note(text: str) -> str:
                    """Make something."""
                    return self.says(at, unsafe)

                call = {"name": "note", "args": {"text": "x"}, "id": f"c{at}", "type": "tool_call"}
                result: str = guard_tool(note, safeguard=self.safeguard).invoke(call).text
                return result
        raise AssertionError(step)

    def node(self, state: Any) -> Any:
        self.results = []
        for at, step in enumerate(self.steps):
            self.results.append(self.step(at, step))
            # At once: a step may show it to somebody, though it is begun anew afterwards.
            assert "bomb" not in self.results[-1] or self.results[-1] in self.approved
        return {"messages": "done"}


@settings(max_examples=100, deadline=None)
@given(st.lists(STEP, min_size=1, max_size=5), st.lists(st.booleans(), min_size=1, max_size=6))
def test_no_answer_goes_to_another_question(steps: list[Any], approvals: list[bool]) -> None:
    program = Program(steps)
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
        if step[0] == "tool":
            # A tool runs once, whatever else is asked beside it.
            assert program.said[at] == 0
