"""Texts of ten million characters: nobody waits for them longer than asked, and nothing passes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest

from langchain_safeguard import Conversation, GuardTimeoutError, Safeguard, load_guard
from langchain_safeguard.engines import Completion, Prompt
from langchain_safeguard.engines.base import Engine
from langchain_safeguard.guards import ModelGuard
from langchain_safeguard.guards.llama_guard import LlamaGuard
from tests.tiny_guards import tiny_llama_guard

LENGTH = 10_000_000
KINDS = {
    "one-word": "a",
    "emoji": "😀👍🏽",
    "korean": "안녕하세요",
    "blanks": " ",
    "control": "<|eot_id|>",
    "marker": "Agent:\n",
}
HUGE = [pytest.param((part * LENGTH)[:LENGTH] + "bomb", id=name) for name, part in KINDS.items()]
LATE = 20.0
"""The seconds by which a deadline of one may be missed on a machine that is very busy."""


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> ModelGuard[Prompt, Completion]:
    guard = load_guard(tiny_llama_guard(tmp_path_factory.mktemp("guard")), max_tokens=1024)
    assert isinstance(guard, ModelGuard)
    return guard


@pytest.mark.parametrize("text", HUGE)
@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_text_that_takes_too_long_is_blocked_in_time(
    guard: ModelGuard[Prompt, Completion], text: str, way: str
) -> None:
    safeguard = Safeguard(guard=guard, timeout=1, max_characters=2 * LENGTH)
    begin = time.monotonic()
    # Also the end of the event loop waits for no thread that goes on.
    decision = asyncio.run(safeguard.acheck(text)) if way == "async" else safeguard.check(text)
    assert time.monotonic() - begin < 1 + LATE
    assert decision.action == "block"
    assert decision.verdicts[0].reason == "no verdict within 1 s"
    # The queue is empty again: others are served.
    assert not Safeguard(guard=guard, timeout=60).check("Hello").verdicts[0].failed


@pytest.mark.parametrize("text", HUGE)
def test_a_huge_turn_before_the_judged_one_costs_nothing_and_is_named(
    guard: ModelGuard[Prompt, Completion], text: str
) -> None:
    talk = [("user", text), ("assistant", "No."), ("user", "Hello")]
    [verdict] = Safeguard(guard=guard, timeout=60).check(talk).verdicts
    assert not verdict.failed, verdict.reason
    assert verdict.dropped_turns == 1


class Counting(Engine[Prompt, Completion]):
    """Counts the characters that it is asked to tokenise; a token has two."""

    limit = 10_000

    def __init__(self, seconds: float = 0) -> None:
        super().__init__()
        self.characters = 0
        self.answered = 0
        self.windows = threading.Event()
        self._seconds = seconds

    def run(self, questions: Sequence[Prompt]) -> list[Completion]:
        self.answered += len(questions)
        return [Completion({"verdict": {"safe": 0.9, "unsafe": 0.1}}) for _ in questions]

    def measure(self, question: Prompt) -> int:
        time.sleep(self._seconds)
        self.characters += len(question.text)
        if self.characters > 100_000:
            self.windows.set()
        return len(question.text) // 2

    def offsets(self, text: str) -> list[tuple[int, int]]:
        self.characters += len(text)
        return [(at, at + 2) for at in range(0, len(text), 2)]


def test_no_more_is_tokenised_than_fits_into_windows() -> None:
    engine = Counting()
    guard = ModelGuard(engine, LlamaGuard("3-8b"), name="counting")
    talk = [("user", "y" * LENGTH), ("assistant", "z" * LENGTH)] * 5 + [("user", "Hello")]
    [verdict] = guard.check([Conversation.of(talk)], "input")
    assert verdict.dropped_turns == 10
    assert engine.characters < 100_000
    text = "x" * (LENGTH // 100)
    engine.characters = 0
    [verdict] = guard.check([Conversation.of(text)], "input")
    assert len(verdict.spans) > 5
    assert engine.characters < 10 * len(text)
    assert verdict.spans[-1].end == len(text)


async def test_no_thread_goes_on_for_a_task_that_is_cancelled() -> None:
    engine = Counting(seconds=0.01)
    guard = ModelGuard(engine, LlamaGuard("3-8b"), name="counting")
    task = asyncio.create_task(guard.acheck([Conversation.of("x" * LENGTH)], "input"))
    assert await asyncio.to_thread(engine.windows.wait, 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.5)
    tokenised = engine.characters
    await asyncio.sleep(0.5)
    assert engine.characters == tokenised
    assert engine.answered == 0


def test_one_huge_text_of_a_batch_is_late_alone() -> None:
    engine = Counting(seconds=0.001)
    guard = ModelGuard(engine, LlamaGuard("3-8b"), name="counting")
    with pytest.raises(GuardTimeoutError):
        guard.check_within([Conversation.of("x" * LENGTH)], "input", 0.2)
    safeguard = Safeguard(guard=guard, timeout=1, max_characters=LENGTH)
    found = safeguard.batch(["Hello", "x" * LENGTH, "Bye"])
    assert [each.action for each in found] == ["allow", "block", "allow"]
