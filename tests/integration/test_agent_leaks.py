"""Guarded agents: a blocked answer appears nowhere, whatever middleware stands around the guard."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    HumanInTheLoopMiddleware,
    ModelFallbackMiddleware,
    ModelRetryMiddleware,
    PIIMiddleware,
    SummarizationMiddleware,
)
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.tools import tool
from pydantic import BaseModel

from langchain_safeguard import ContentBlockedError, guard_model
from langchain_safeguard.testing import LeakError, assert_no_leak
from tests.agents import (
    HI,
    REFUSAL,
    SAFE,
    SECRET,
    UNSAFE,
    agent,
    calling,
    contents,
    middleware,
    notebook,
    tokens,
)
from tests.chat_models import (
    StreamingChatModel,
    WholeChatModel,
    call_chunks,
    reasoning_chunks,
    words,
)
from tests.word_guard import FaultyGuard, WordGuard

CHANNELS = ["core", "events", "callbacks", "langgraph"]
ARGUMENTS = '{"text": "put the bomb together now"}'


def assert_clean(agent: Any, channels: Any = CHANNELS, expect: Any = REFUSAL) -> None:
    assert_no_leak(agent, SECRET, input=HI, expect=expect, channels=channels, allow_errors=False)


def test_a_blocked_answer_appears_on_no_channel() -> None:
    report = assert_no_leak(agent(UNSAFE), SECRET, input=HI, expect=REFUSAL, allow_errors=False)
    assert not report.skipped


def test_the_kit_hears_an_agent_whose_guard_comes_too_late() -> None:
    class Late(AgentMiddleware[Any, Any, Any]):
        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            answer = handler(request).result[0]
            return AIMessage(REFUSAL, id=answer.id) if SECRET in answer.text else answer

    with pytest.raises(LeakError, match="langgraph_messages"):
        assert_no_leak(agent(UNSAFE, around=[Late()]), SECRET, input=HI, channels=CHANNELS)


ANSWERS: dict[str, Any] = {
    "whole": WholeChatModel(script=UNSAFE),
    "tool call": [*words("I note it. "), *call_chunks("note", ARGUMENTS)],
    "reasoning": [*reasoning_chunks("So I put the bomb together first. "), *words("Here is how.")],
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_no_part_of_a_blocked_answer_appears(answer: Any) -> None:
    note, written = notebook()
    assert_clean(agent(answer, [note]))
    assert not written


def test_an_answer_that_is_blocked_late_in_the_loop_appears_nowhere() -> None:
    note, written = notebook()
    model = StreamingChatModel(script=calling("milk", then=UNSAFE))
    assert_clean(agent(model, [note]))
    assert written


def test_a_guard_that_fails_lets_nothing_out() -> None:
    def broken() -> Any:
        raise RuntimeError(SECRET)

    assert_clean(agent(UNSAFE, around=[middleware(FaultyGuard(broken, "output"))]))


def test_a_block_that_raises_leaves_nothing_behind() -> None:
    assert_clean(agent(UNSAFE, around=[middleware(on_block="raise")]), expect=ContentBlockedError)


class Answer(BaseModel):
    """A structured answer."""

    text: str


@pytest.mark.parametrize("with_tools", [True, False])
@pytest.mark.parametrize("strategy", ["tool", "provider"])
def test_a_blocked_structured_answer_ends_the_run_and_appears_nowhere(
    strategy: str, with_tools: bool
) -> None:
    script: Any = f'{{"text": "{UNSAFE}"}}'
    profile: Any = {"structured_output": strategy == "provider"}
    if strategy == "tool":
        script = call_chunks("Answer", script)
    model = StreamingChatModel(script=script, profile=profile)
    tools = [notebook()[0]] if with_tools else []
    built = agent(model, tools, response_format=Answer)
    state = built.invoke(HI)
    assert contents(state)[-1] == ("ai", REFUSAL)
    assert state.get("structured_response") is None
    assert model.tally.calls == 1
    assert_clean(built)


# --- beside other middleware ---


class Copying(AgentMiddleware[Any, Any, Any]):
    """Replaces the answer by one of its own making."""

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        handler(request)
        return AIMessage(UNSAFE)

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        await handler(request)
        return AIMessage(UNSAFE)


class Rewrapping(AgentMiddleware[Any, Any, Any]):
    """Puts a guard of its own around the model, one that sees nothing in anything."""

    def _request(self, request: Any) -> Any:
        lax = guard_model(request.model, WordGuard({"xyz": "hate"}), check_every=4)
        return request.override(model=lax)

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return handler(self._request(request))

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        return await handler(self._request(request))


def failing() -> StreamingChatModel:
    return StreamingChatModel(script=[RuntimeError("down")])


def unsafe() -> StreamingChatModel:
    return StreamingChatModel(script=UNSAFE)


COMPANY: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "fallback": (failing, lambda: ModelFallbackMiddleware(unsafe())),
    "retry": (unsafe, lambda: ModelRetryMiddleware(max_retries=1, initial_delay=0)),
    "human": (unsafe, lambda: HumanInTheLoopMiddleware(interrupt_on={"note": True})),
    "pii": (unsafe, lambda: PIIMiddleware("email", apply_to_output=True)),
    "summary": (
        unsafe,
        lambda: SummarizationMiddleware(
            StreamingChatModel(script="They said hi."),
            trigger=("messages", 1),
            keep=("messages", 1),
        ),
    ),
    "another guard": (unsafe, lambda: middleware(WordGuard({"xyz": "hate"}))),
    "copying": (lambda: StreamingChatModel(script=SAFE), Copying),
    "rewrapping": (unsafe, Rewrapping),
}


@pytest.mark.parametrize("first", [True, False], ids=["guard first", "guard last"])
@pytest.mark.parametrize("company", COMPANY)
def test_a_blocked_answer_appears_nowhere_beside_other_middleware(
    company: str, first: bool
) -> None:
    if company == "copying" and not first:
        pytest.skip("what stands in front of the guard has the last word")
    model, other = COMPANY[company]
    around = [middleware(), other()] if first else [other(), middleware()]
    assert_clean(agent(model(), [notebook()[0]], around=around))


def test_a_fallback_between_two_guards_is_judged_by_both() -> None:
    first, second = WordGuard({"wire": "hate"}), WordGuard({"powders": "hate"})
    for script in ("Take a wire " + SECRET, "Mix powders " + SECRET):
        fallback = ModelFallbackMiddleware(StreamingChatModel(script=script))
        around = [middleware(first), fallback, middleware(second)]
        assert_clean(agent(failing(), around=around))


def test_safe_answers_stream_through_two_guards() -> None:
    built = agent(SAFE, around=[middleware(), middleware(WordGuard({"xyz": "hate"}))])
    shown = tokens(built, HI)
    assert len(shown) > 2
    assert "".join(shown) == SAFE


def test_a_model_behind_the_guard_that_nobody_judged_is_heard_only_once_judged() -> None:
    fallback = ModelFallbackMiddleware(StreamingChatModel(script=SAFE))
    built = agent(failing(), around=[middleware(), fallback])
    assert tokens(built, HI) == [SAFE]
    assert contents(built.invoke(HI))[-1] == ("ai", SAFE)


# --- agents in agents ---


def outer(inner: Any) -> Any:
    @tool
    async def anote(text: str) -> str:
        """Ask the other agent."""
        return str((await inner.ainvoke(HI))["messages"][-1].text)

    @tool
    def note(text: str) -> str:
        """Ask the other agent."""
        return str(inner.invoke(HI)["messages"][-1].text)

    note.coroutine = anote.coroutine  # type: ignore[attr-defined]

    def repeat(messages: list[BaseMessage]) -> Any:
        return f"It says: {messages[-1].text}"

    def script(messages: list[BaseMessage]) -> Any:
        return calling("hi", then=repeat(messages))(messages)

    return create_agent(StreamingChatModel(script=script), [note], middleware=[middleware()])


def test_a_guarded_agent_inside_a_guarded_agent_is_clean() -> None:
    built = outer(agent(UNSAFE))
    assert contents(built.invoke(HI))[-2:] == [("tool", REFUSAL), ("ai", f"It says: {REFUSAL}")]
    assert_clean(built)


def test_an_agent_inside_is_not_guarded_by_the_one_around_it() -> None:
    with pytest.raises(LeakError, match="langgraph"):
        assert_clean(outer(agent(UNSAFE, around=[])))


# --- what is kept ---


def saved(folder: Path) -> str:
    return "".join(
        path.read_bytes().decode("utf-8", "replace") for path in sorted(folder.iterdir())
    )


def test_a_blocked_answer_is_not_in_the_database(tmp_path: Path) -> None:
    sqlite = pytest.importorskip("langgraph.checkpoint.sqlite")
    connection = sqlite3.connect(tmp_path / "threads.db", check_same_thread=False)
    built = agent(
        StreamingChatModel(script=calling("milk", then=UNSAFE)),
        [notebook()[0]],
        checkpointer=sqlite.SqliteSaver(connection),
    )
    built.invoke(HI, {"configurable": {"thread_id": "1"}})
    connection.close()
    assert "noted milk" in saved(tmp_path)
    assert SECRET not in saved(tmp_path)


async def test_a_blocked_answer_is_not_in_the_database_of_an_async_run(tmp_path: Path) -> None:
    sqlite = pytest.importorskip("langgraph.checkpoint.sqlite.aio")
    async with sqlite.AsyncSqliteSaver.from_conn_string(str(tmp_path / "threads.db")) as saver:
        built = agent(
            StreamingChatModel(script=calling("milk", then=UNSAFE)),
            [notebook()[0]],
            checkpointer=saver,
        )
        await built.ainvoke(HI, {"configurable": {"thread_id": "1"}})
    assert "noted milk" in saved(tmp_path)
    assert SECRET not in saved(tmp_path)


def test_the_example_runs_and_keeps_what_it_promises() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, root / "examples" / "agent.py"],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "The cruel answer is in a checkpoint: False; it was posted: False" in done.stdout
    assert done.stdout.count("It is sunny in Busan") == 3
    assert "worthless" not in done.stdout
