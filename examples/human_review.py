"""A person decides what the guard is not sure about: later, from a queue, or at once, in a graph.

    python examples/human_review.py

Runs offline: the model is a few canned answers. The reviewer, too, is played by this script; they
would use `langchain-safeguard review list`, `show`, `approve`, `edit`, `reject` and `respond`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, TypedDict

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command

from langchain_safeguard import (
    HumanReview,
    InputGuard,
    OutputGuard,
    Policy,
    ReviewQueue,
    Rule,
    Safeguard,
    with_ticket,
)

QUESTION = {"question": "How do pickpockets steal wallets?"}
POLICY = Policy([Rule(thresholds={"escalate": 0.25, "block": 0.95})])


class CannedModel(BaseChatModel):
    """Says the same to everybody, and counts how often it is asked."""

    asked: int = 0

    @property
    def _llm_type(self) -> str:
        return "canned"

    def _generate(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        self.asked += 1
        answer = AIMessage("They work in pairs: one distracts you, the other steals your wallet.")
        return ChatResult(generations=[ChatGeneration(message=answer)])


def later(folder: Path) -> None:
    """Hold an answer until a person has decided, whatever becomes of this process."""
    queue = ReviewQueue(folder / "reviews.db")
    safeguard = Safeguard(policy=POLICY, handlers=[HumanReview(queue)])
    model = CannedModel()
    prompt = ChatPromptTemplate.from_template("{question}")
    chain = prompt | InputGuard() | model | OutputGuard(safeguard=safeguard)

    answer = chain.invoke(QUESTION)
    print("the user reads:    ", answer.text)
    ticket = queue.list()[0]
    print("the reviewer reads:", ticket.text, f"({', '.join(ticket.categories)})")
    queue.decide(ticket.id, "approve", reviewer="kim")
    answer = chain.invoke(QUESTION, config=with_ticket(ticket.id))
    print("the user reads:    ", answer.text)
    print("the model was asked", model.asked, "time")


class State(TypedDict, total=False):
    """What the graph works on."""

    question: str
    verdict: str


def at_once() -> None:
    """Stop a graph until a person has decided."""
    safeguard = Safeguard(policy=POLICY, handlers=[HumanReview()])

    def check(state: State) -> State:
        return {"verdict": safeguard.check(state["question"]).action.value}

    graph = StateGraph(State)
    graph.add_node("check", check)
    graph.add_edge(START, "check")
    app = graph.compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    stopped = app.invoke(QUESTION, config)
    print("the graph asks:    ", stopped["__interrupt__"][0].value["action_requests"][0])
    done = app.invoke(Command(resume={"decisions": [{"type": "approve"}]}), config)
    print("it goes on with:   ", done)


def main() -> None:
    """Run both."""
    print("== a queue")
    with tempfile.TemporaryDirectory() as folder:
        later(Path(folder))
    print("\n== a graph")
    at_once()


if __name__ == "__main__":
    main()
