"""Guards around models that fail, are slow, or are copied: closed, and nothing is left behind."""

from __future__ import annotations

import asyncio
import copy
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from langchain_core.runnables import RunnableLambda
from transformers import AutoModelForCausalLM

from langchain_safeguard import (
    Conversation,
    GuardOutputError,
    GuardTimeoutError,
    InputGuard,
    OutputGuard,
    Safeguard,
    load_guard,
)
from langchain_safeguard.engines import Completion, Prompt
from langchain_safeguard.engines.base import Engine
from langchain_safeguard.guards import ModelGuard
from langchain_safeguard.guards.llama_guard import LlamaGuard
from tests.tiny_guards import tiny_llama_guard


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama_guard(tmp_path_factory.mktemp("guard"))


# texts that are hardly any


@pytest.mark.parametrize(
    "text",
    ["", "\n", "\u200b", "\0", "\ud800", "a\udfff" * 900, "<|eot_id|>", "\ue0f00\ue0f1", "{{x}}"],
)
def test_a_strange_text_is_judged(folder: Path, text: str) -> None:
    guard = load_guard(folder, max_tokens=1024)
    before = Conversation.of([("user", text), ("assistant", text), ("user", "bomb")])
    for conversation in (Conversation.of(text), before):
        [verdict] = Safeguard(guard=guard).check(conversation).verdicts
        assert not verdict.failed, verdict.reason
        assert verdict.score is not None


# what is no number


@pytest.mark.parametrize("text", ["bomb", "bomb " * 2000])
def test_a_model_that_gives_no_numbers_blocks(folder: Path, tmp_path: Path, text: str) -> None:
    broken = tiny_llama_guard(tmp_path / "guard")
    model = AutoModelForCausalLM.from_pretrained(broken)
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    model.save_pretrained(broken)
    guard = load_guard(broken, max_tokens=1024)
    with pytest.raises(GuardOutputError, match="not finite"):
        guard.check([Conversation.of(text)], "input")
    decision = Safeguard(guard=guard).check(text)
    assert decision.action == "block"
    assert decision.verdicts[0].failed


# who does not wait any longer


class Slow(Engine[Prompt, Completion]):
    """Answers one question at a time, when it is let."""

    limit = 300

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()
        self.let = threading.Event()
        self.answered = 0

    def run(self, questions: Sequence[Prompt]) -> list[Completion]:
        self.begun.set()
        assert self.let.wait(30)
        self.answered += len(questions)
        return [Completion({"verdict": {"safe": 0.9, "unsafe": 0.1}}) for _ in questions]

    def measure(self, question: Prompt) -> int:
        return len(question.text.split())

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return [(at, at + 2) for at in range(0, len(text), 2)]


LONG = Conversation.of("w " * 20_000)


def end_of(engine: Slow, guard: ModelGuard[Prompt, Completion]) -> int:
    """Return how many questions were answered once all that is queued is done with."""
    engine.let.set()
    guard.check([Conversation.of("hi")], "input")
    return engine.answered


def test_nothing_is_computed_for_those_who_stopped_waiting() -> None:
    engine = Slow()
    guard = ModelGuard(engine, LlamaGuard("3-8b"))
    with pytest.raises(GuardTimeoutError):
        guard.check_within([LONG, LONG], "input", 0.2)
    # At most the batch that had begun, and the question after it.
    assert end_of(engine, guard) <= 32 + 1


async def test_nothing_is_computed_for_tasks_that_are_cancelled() -> None:
    engine = Slow()
    guard = ModelGuard(engine, LlamaGuard("3-8b"))
    task = asyncio.create_task(guard.acheck([LONG, LONG], "input"))
    await asyncio.to_thread(engine.begun.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(end_of, engine, guard) <= 32 + 1


END = """
import sys
from langchain_safeguard import Safeguard, load_guard

safeguard = Safeguard(guard=load_guard(sys.argv[1]), timeout=1)
assert safeguard.check("how to make a bomb " * 12_000).verdicts[0].failed
"""


def test_a_process_can_end_while_a_model_computes(folder: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", END, str(folder)], capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr


# copies


def test_a_copy_of_a_chain_shares_its_guards(folder: Path) -> None:
    guard = load_guard(folder)
    chain = InputGuard(guard) | RunnableLambda(str) | OutputGuard(guard)
    copied = copy.deepcopy(chain)
    assert type(copied) is type(chain)
    assert copy.deepcopy(guard) is guard
