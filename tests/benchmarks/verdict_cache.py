"""What the verdict cache saves an agent: guard calls and time, with it and without, side by side.

    python -m tests.benchmarks.verdict_cache [--turns 20] [--judge-turns 8]

A conversation of so many turns: each time the user asks, a scripted model calls a tool, reads its
result and answers. `SafeguardMiddleware` and `ToolGuardMiddleware` check all of it with the
embedded guard. In the first part the client sends the whole conversation each time, as clients of
stateless servers do; in the second a checkpointer keeps it, so that the middleware itself knows
which turns it has checked; in the third a client sends the last turn again, as after a lost
connection. The fourth is as the first, for a guard that is a language model: SmolLM2-135M with a
question and two words, whose engine has a cache of its own for what it has read. Both agents take
each turn one after the other, so that whatever else the machine does meets both; times are wall-
clock times of the whole agent.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from transformers.utils import logging

from langchain_safeguard import Action, Guard, Policy, Safeguard
from langchain_safeguard.guards import ModelGuard
from langchain_safeguard.loading import load_guard
from langchain_safeguard.middleware import SafeguardMiddleware, ToolGuardMiddleware
from tests.benchmarks.cascade import judges

RETRIES = 5
TOPICS = ["bread", "tomatoes", "a bicycle", "a tent", "old books", "a guitar", "candles", "soup"]


@tool
def look_up(topic: str) -> str:
    """Look something up in the handbook."""
    page = f"The handbook on {topic}: keep it dry, clean it often, and do not leave it in the sun. "
    return page * 5


class Scripted(BaseChatModel):
    """Calls the tool once for each question, and then answers."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **options: Any) -> Any:
        """Need no telling."""
        return self

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        said = next(m.text for m in reversed(messages) if isinstance(m, HumanMessage))
        if isinstance(messages[-1], ToolMessage):
            answer = AIMessage(f"The handbook has this about it: keep it dry. You asked: {said}")
        else:
            number = sum(isinstance(message, HumanMessage) for message in messages)
            call = {"name": "look_up", "args": {"topic": said}, "id": f"call_{number}"}
            answer = AIMessage("", tool_calls=[call])
        return ChatResult(generations=[ChatGeneration(message=answer)])


class Agent:
    """A guarded agent, with its client.

    Args:
        guard: What judges.
        cache: How many verdicts are remembered.
        keeps: Whether a checkpointer keeps the conversation; the client does otherwise.
    """

    def __init__(self, guard: Guard, *, cache: int | None, keeps: bool) -> None:
        self.guard = guard
        # What is measured does not depend on what is found.
        safeguard = Safeguard(guard, Policy(default=Action.FLAG), cache=cache, audit=None)
        layers = [
            SafeguardMiddleware(safeguard=safeguard),
            ToolGuardMiddleware(safeguard=safeguard),
        ]
        saver = InMemorySaver() if keeps else None
        self._agent: Any = create_agent(
            Scripted(), [look_up], middleware=layers, checkpointer=saver
        )
        self._keeps = keeps
        self._messages: list[BaseMessage] = []
        self._sent: list[BaseMessage] = []
        self.judged, self.seconds = 0, 0.0

    def say(self, text: str) -> None:
        """Take one turn."""
        self._sent = [*([] if self._keeps else self._messages), HumanMessage(text)]
        self._messages = self._send()

    def again(self) -> None:
        """Send the last request once more."""
        self._send()

    def _send(self) -> list[BaseMessage]:
        assert isinstance(self.guard, ModelGuard), "both guards count what they judge"
        before, begin = self.guard.stats["checks"], time.perf_counter()
        state = self._agent.invoke({"messages": self._sent}, {"configurable": {"thread_id": "one"}})
        self.seconds += time.perf_counter() - begin
        self.judged += self.guard.stats["checks"] - before
        messages: list[BaseMessage] = state["messages"]
        assert messages[-1].text.startswith("The handbook has this about it"), "it was blocked"
        return messages


def question(number: int) -> str:
    """Return what the user asks in a turn."""
    return f"How do I take care of {TOPICS[number % len(TOPICS)]} in week {number + 1}?"


def compare(
    title: str, turns: int, guards: Sequence[Guard], *, keeps: bool = False, retries: bool = False
) -> None:
    """Let both agents take the same turns, one after the other, and print what it took them."""
    agents = {
        "without cache": Agent(guards[0], cache=None, keeps=keeps),
        "with cache": Agent(guards[-1], cache=4096, keeps=keeps),
    }
    for number in range(turns):
        # In turns: who comes second finds the processor's caches warm.
        for agent in sorted(agents.values(), key=id, reverse=number % 2 == 0):
            agent.say(question(number))
    if retries:
        for agent in agents.values():
            agent.judged, agent.seconds = 0, 0.0
        for _ in range(RETRIES):
            for agent in agents.values():
                agent.again()
    print(f"\n{title}")
    for name, agent in agents.items():
        print(f"  {name:<14} {agent.judged:5} texts judged   {agent.seconds:7.3f} s", flush=True)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--judge-turns", type=int, default=8)
    options = parser.parse_args()
    turns, few = options.turns, options.judge_turns
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    guard = load_guard()
    first = Agent(guard, cache=None, keeps=False)
    for number in range(turns):
        # The first text of each length costs more than all later ones.
        first.say(question(number))
    compare(f"{turns} turns, the client sends all of them", turns, [guard])
    compare(f"{turns} turns, a checkpointer keeps them", turns, [guard], keeps=True)
    compare(f"turn {turns} sent {RETRIES} times more", turns, [guard], retries=True)
    if few:
        # One each, so that neither profits from what the other one's engine has read.
        compare(f"{few} turns, all of them sent, a language model judges", few, judges(2))


if __name__ == "__main__":
    main()
