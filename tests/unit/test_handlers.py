"""Handlers that hang, answer late or abstain: the next one is asked, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from langchain_safeguard import (
    ConfigurationError,
    Conversation,
    Decision,
    Escalation,
    Finding,
    Guard,
    GuardTimeoutError,
    Policy,
    Rule,
    Safeguard,
    SecondOpinion,
    Side,
    Verdict,
    VerdictCache,
)
from langchain_safeguard.taxonomy import Category
from tests.word_guard import FaultyGuard, WordGuard

ESCALATE = {"default": "escalate", "message": "No."}

Way = Callable[[Safeguard, Any], Decision]
WAYS: dict[str, Way] = {
    "check": lambda safeguard, value: safeguard.check(value),
    "acheck": lambda safeguard, value: asyncio.run(safeguard.acheck(value)),
    "batch": lambda safeguard, value: safeguard.batch([value])[0],
    "abatch": lambda safeguard, value: asyncio.run(safeguard.abatch([value]))[0],
}


@pytest.fixture(params=WAYS)
def decided(request: pytest.FixtureRequest) -> Way:
    return WAYS[request.param]


@pytest.fixture
def never() -> Iterator[threading.Event]:
    """Give something to wait for that does not come before the test has ended."""
    event = threading.Event()
    yield event
    event.set()


# --- time ---


def test_a_handler_that_hangs_has_not_decided(decided: Way, never: threading.Event) -> None:
    def hangs(escalation: Escalation) -> str:
        never.wait()
        return "allow"

    begin = time.monotonic()
    safeguard = Safeguard(WordGuard(), ESCALATE, handlers=[hangs], handler_timeout=0.2)
    decision = decided(safeguard, "hate")
    assert (decision.blocked, decision.text, decision.resolved_by) == (True, "No.", None)
    handlers = [hangs, lambda escalation: "flag"]
    patient = Safeguard(WordGuard(), ESCALATE, handlers=handlers, handler_timeout=0.6)
    assert decided(patient, "hate").resolved_by == "<lambda>"

    async def ahangs(escalation: Escalation) -> str:
        await asyncio.sleep(60)
        return "allow"

    # Not of `hangs` alone: at its end the event loop waits for the thread LangChain puts it in.
    runnable = [RunnableLambda(hangs, afunc=ahangs)]
    assert decided(
        Safeguard(WordGuard(), ESCALATE, handlers=runnable, handler_timeout=0.2), "hate"
    ).blocked
    assert time.monotonic() - begin < 20


def test_a_rewriter_that_hangs_means_block(decided: Way, never: threading.Event) -> None:
    policy = Policy(rules=(Rule("hate", "rewrite", rewrite=lambda text: never.wait() and "love"),))
    assert decided(Safeguard(WordGuard(), policy, handler_timeout=0.2), "hate").blocked


@pytest.mark.parametrize("way", ["acheck", "abatch"])
def test_a_coroutine_that_ignores_its_end_holds_nobody_and_is_not_quoted(
    way: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def stubborn(escalation: Escalation) -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.3)
        raise ValueError(escalation.text)

    async def run() -> Decision:
        safeguard = Safeguard(WordGuard(), ESCALATE, handlers=[stubborn], handler_timeout=0.1)
        if way == "acheck":
            decision = await safeguard.acheck("so much hate")
        else:
            [decision] = await safeguard.abatch(["so much hate"])
        await asyncio.sleep(0.6)
        gc.collect()
        return decision

    with caplog.at_level(logging.DEBUG):
        assert asyncio.run(run()).blocked
    assert "so much" not in caplog.text
    assert "never retrieved" not in caplog.text


def test_a_check_that_is_cancelled_cancels_its_handler() -> None:
    ended: list[str] = []
    begun = asyncio.Event()

    async def slow(escalation: Escalation) -> str:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("cancelled")
        return "allow"

    async def run() -> None:
        safeguard = Safeguard(WordGuard(), ESCALATE, handlers=[slow])
        check = asyncio.ensure_future(safeguard.acheck("hate"))
        await begun.wait()
        check.cancel()
        with pytest.raises(asyncio.CancelledError):
            await check
        await asyncio.sleep(0)

    asyncio.run(run())
    assert ended == ["cancelled"]


@pytest.mark.parametrize("timeout", [5.0, None])
def test_a_handler_sees_the_context_it_is_asked_in(decided: Way, timeout: float | None) -> None:
    tenant = contextvars.ContextVar("tenant", default="nobody")
    seen: list[str] = []

    def handler(escalation: Escalation) -> str:
        seen.append(tenant.get())
        return "allow"

    safeguard = Safeguard(WordGuard(), ESCALATE, handlers=[handler], handler_timeout=timeout)
    tenant.set("kim")
    assert decided(safeguard, "hate").passes
    assert seen == ["kim"]


@pytest.mark.parametrize("timeout", [5.0, None])
@pytest.mark.parametrize("is_async", [False, True])
def test_an_interrupt_goes_through(timeout: float | None, is_async: bool) -> None:
    safeguard = Safeguard(
        WordGuard(),
        ESCALATE,
        handlers={"person": lambda escalation: interrupt({"side": escalation.side})},
        handler_timeout=timeout,
    )

    def node(state: Any) -> Any:
        return {"said": safeguard.check(state["said"]).action.value}

    async def anode(state: Any) -> Any:
        return {"said": (await safeguard.acheck(state["said"])).action.value}

    graph = StateGraph(dict)
    graph.add_node("check", anode if is_async else node)
    graph.add_edge(START, "check")
    graph.add_edge("check", END)
    built: Any = graph.compile(checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}

    def run(value: Any) -> Any:
        return (
            asyncio.run(built.ainvoke(value, config)) if is_async else built.invoke(value, config)
        )

    assert run({"said": "hate"})["__interrupt__"][0].value == {"side": "input"}
    assert run(Command(resume="flag")) == {"said": "flag"}


class _Asynchronous:
    async def __call__(self, escalation: Escalation) -> str:
        await asyncio.sleep(0)
        return "allow"


@pytest.mark.parametrize("handler", [_Asynchronous(), lambda asked: _Asynchronous()(asked)])
@pytest.mark.parametrize("timeout", [5.0, None])
def test_whatever_is_asynchronous_is_awaited(handler: Any, timeout: float | None) -> None:
    safeguard = Safeguard(
        WordGuard(), ESCALATE, handlers={"late": handler}, handler_timeout=timeout
    )
    assert asyncio.run(safeguard.acheck("hate")).action.value == "allow"
    # Sync code has no event loop for it: it has not decided.
    assert safeguard.check("hate").blocked


@pytest.mark.parametrize("value", [0, -1, True, "5", float("nan"), float("inf")])
@pytest.mark.parametrize("option", ["timeout", "handler_timeout"])
def test_a_wrong_time_is_named(option: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{option}=.*seconds above 0, or None"):
        Safeguard(WordGuard(), **{option: value})


@pytest.mark.parametrize("option", ["attempts", "max_characters"])
@pytest.mark.parametrize("value", [0, True, "3", 1.5, None])
def test_a_wrong_count_is_named(option: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{option}=.*allowed: 1, 2, ..."):
        Safeguard(WordGuard(), **{option: value})


@pytest.mark.parametrize(
    "handlers", [5, "allow", None, [5], ["allow"], [SecondOpinion], {"person": "allow"}]
)
def test_what_is_no_handler_is_named(handlers: Any) -> None:
    with pytest.raises(ConfigurationError, match="handler"):
        Safeguard(WordGuard(), handlers=handlers)


# --- second opinions ---


class _Grey(Guard):
    """Scores hate as it is told."""

    name = "grey"
    categories = frozenset({Category.HATE})

    def __init__(self, *scores: float) -> None:
        self.scores = [*scores]
        self.calls = 0

    def check(self, conversations: Sequence[Conversation], side: Side) -> list[Verdict]:
        self.calls += 1
        score = self.scores[min(self.calls, len(self.scores)) - 1]
        return [Verdict(self.name, findings=(Finding(Category.HATE, score),), score=score)] * len(
            conversations
        )


def _policy(form: str, folder: Path) -> Any:
    rules = [{"categories": "hate", "action": "flag", "threshold": 0.2}]
    if form == "policy":
        return Policy(rules=(Rule("hate", "flag", 0.2),))
    if form == "dict":
        return {"rules": rules}
    path = folder / "second.yaml"
    path.write_text("rules:\n  - categories: hate\n    action: flag\n    threshold: 0.2\n")
    return str(path) if form == "text" else path


@pytest.mark.parametrize("form", ["policy", "dict", "text", "path"])
def test_a_second_opinion_reads_its_policy_in_every_form(
    decided: Way, form: str, tmp_path: Path
) -> None:
    second = SecondOpinion(_Grey(0.3), _policy(form, tmp_path))
    decision = decided(Safeguard(WordGuard(), ESCALATE, handlers=[second]), "hate")
    assert (decision.action, decision.resolved_by) == ("flag", "second_opinion:grey")


@pytest.mark.parametrize(
    "policy", [5, {"rules": [{"categories": "fraud", "action": "block"}]}, {"defualt": "block"}]
)
def test_a_second_opinion_names_what_is_wrong_with_its_policy(policy: Any) -> None:
    with pytest.raises(ConfigurationError, match="allowed"):
        SecondOpinion(_Grey(0.3), policy)


@pytest.mark.parametrize(
    ("option", "value"),
    [("timeout", 0), ("timeout", "5"), ("attempts", 0), ("max_characters", True), ("cache", "on")],
)
def test_a_second_opinion_names_a_wrong_value(option: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{option}="):
        SecondOpinion(_Grey(0.3), **{option: value})


@pytest.mark.parametrize("action", ["escalate", "rewrite"])
def test_a_second_opinion_that_would_not_decide_abstains(decided: Way, action: str) -> None:
    policy = Policy(rules=(Rule("hate", action, rewrite="love"),))
    handlers = {"second": SecondOpinion(_Grey(0.9), policy), "last": lambda escalation: "flag"}
    assert (
        decided(Safeguard(WordGuard(), ESCALATE, handlers=handlers), "hate").resolved_by == "last"
    )


def test_a_second_opinion_that_hangs_has_not_decided(decided: Way, never: threading.Event) -> None:
    guard = FaultyGuard(lambda: [never.wait()])
    handlers = {"second": SecondOpinion(guard, timeout=0.2), "last": lambda escalation: "flag"}
    assert (
        decided(Safeguard(WordGuard(), ESCALATE, handlers=handlers), "hate").resolved_by == "last"
    )
    assert decided(
        Safeguard(WordGuard(), ESCALATE, handlers=[SecondOpinion(guard, timeout=0.2)]), "hate"
    ).blocked


@pytest.mark.parametrize("score", [float("nan"), 1.5])
def test_a_second_opinion_without_a_sound_score_has_not_decided(decided: Way, score: float) -> None:
    handlers = [SecondOpinion(_Grey(score))]
    assert decided(Safeguard(WordGuard(), ESCALATE, handlers=handlers), "hate").resolved_by is None


def test_a_second_opinion_that_fails_for_a_moment_is_asked_again(decided: Way) -> None:
    answers: list[Callable[[], list[Verdict]]] = [
        lambda: (_ for _ in ()).throw(GuardTimeoutError("a moment")),
        lambda: [Verdict("faulty", score=0.0)],
    ]
    second = SecondOpinion(FaultyGuard(lambda: answers.pop(0)()))
    decision = decided(Safeguard(WordGuard(), ESCALATE, handlers=[second]), "hate")
    assert (decision.action, decision.resolved_by) == ("allow", "second_opinion:faulty")
    # And it is not asked about the same text again.
    assert decided(Safeguard(WordGuard(), ESCALATE, handlers=[second]), "hate").passes


def test_a_second_opinion_may_share_a_cache(decided: Way) -> None:
    cache = VerdictCache()
    guard = _Grey(0.9)
    assert decided(Safeguard(guard, cache=cache), "text").blocked
    second = SecondOpinion(guard, cache=cache)
    assert decided(Safeguard(WordGuard(), ESCALATE, handlers=[second]), "text").passes
    decided(Safeguard(WordGuard({"text": "hate"}), ESCALATE, handlers=[second]), "text")
    assert guard.calls == 1


def test_a_second_opinion_on_a_side_it_does_not_judge_leaves_it_to_the_next() -> None:
    guard = _Grey(0.1)
    guard.sides = frozenset({"output"})
    handlers = {"second": SecondOpinion(guard), "last": lambda escalation: "flag"}
    safeguard = Safeguard(WordGuard(), ESCALATE, handlers=handlers)
    assert safeguard.check("hate").resolved_by == "last"
    assert asyncio.run(safeguard.acheck("hate")).resolved_by == "last"
    assert guard.calls == 0
    assert safeguard.check("hate", side="output").resolved_by == "second"
