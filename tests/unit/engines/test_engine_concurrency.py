"""Many callers of one engine: everyone gets the answer to what they asked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from langchain_safeguard.engines import Completion, Prompt, Reading, Writing
from langchain_safeguard.errors import GuardLoadError
from tests.unit.engines.test_causal import VERDICT, Asked, prompt

CALLERS = 24


def marked(number: int) -> Prompt:
    """A prompt that only one caller asks; some have the model write."""
    answer = ["safe", Writing(3)] if number % 3 == 0 else []
    return prompt(f"caller {number} says {'la' * (number % 7)} {number * 37}", VERDICT, *answer)


@pytest.fixture(scope="module")
def expected() -> list[Completion]:
    """What the model's own code answers each."""
    asked = Asked("llama", plain=True)
    found = [asked.ask(marked(number))[0] for number in range(CALLERS)]
    told_apart = {round(each.readings["verdict"]["safe"], 5) for each in found}
    assert len(told_apart) == CALLERS, "a mix-up would not show"
    return found


@pytest.fixture(scope="module")
def asked() -> Asked:
    return Asked("llama")


def assert_same(found: Sequence[Completion], expected: Sequence[Completion]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.readings["verdict"] == pytest.approx(other.readings["verdict"], abs=1e-5)
        assert one.text == other.text
        assert one.tokens == other.tokens


def test_threads(asked: Asked, expected: list[Completion]) -> None:
    before = asked.engine.queue.passes
    with ThreadPoolExecutor(CALLERS) as pool:
        for _ in range(3):
            calls = [
                pool.submit(lambda n=number: asked.engine.submit(marked(n)).result(60))
                for number in range(CALLERS)
            ]
            assert_same([call.result(60) for call in calls], expected)
    assert asked.engine.queue.passes - before < 3 * CALLERS


async def test_coroutines(asked: Asked, expected: list[Completion]) -> None:
    before = asked.engine.queue.passes
    for _ in range(3):
        calls = (
            asyncio.wrap_future(asked.engine.submit(marked(number))) for number in range(CALLERS)
        )
        assert_same(await asyncio.gather(*calls), expected)
    assert asked.engine.queue.passes - before < CALLERS


def test_a_bad_question_fails_alone(asked: Asked, expected: list[Completion]) -> None:
    bad = prompt("bad", Reading("verdict", {"safe": ("safe",), "fine": ("safe",)}))
    questions = [marked(number) for number in range(CALLERS)]
    questions.insert(5, bad)
    futures = [asked.engine.submit(question) for question in questions]
    with pytest.raises(GuardLoadError):
        futures.pop(5).result(60)
    assert_same([future.result(60) for future in futures], expected)


async def test_a_caller_who_leaves_disturbs_nobody(
    asked: Asked, expected: list[Completion]
) -> None:
    calls = [
        asyncio.ensure_future(asyncio.wrap_future(asked.engine.submit(marked(number))))
        for number in range(CALLERS)
    ]
    for call in calls[::4]:
        call.cancel()
    found = await asyncio.gather(*calls, return_exceptions=True)
    for number, answer in enumerate(found):
        if number % 4 == 0:
            assert isinstance(answer, asyncio.CancelledError)
        else:
            assert isinstance(answer, Completion)
            assert_same([answer], [expected[number]])
