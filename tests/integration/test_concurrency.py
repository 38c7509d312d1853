"""One guarded chain under many callers: each answer belongs to its question."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import Runnable

import langchain_safeguard
from langchain_safeguard import InputGuard, OutputGuard, load_guard
from tests.chat_models import StreamingChatModel
from tests.guarded_chains import POLICY, PROMPT, text_of, word_guard


def echo(**options: Any) -> StreamingChatModel:
    return StreamingChatModel(script=lambda m: f"You asked about {m[-1].content}", **options)


def chain_of(guard: Any, policy: Any = None, **options: Any) -> Runnable[Any, Any]:
    model = echo(**options)
    return PROMPT | InputGuard(guard, policy) | model | OutputGuard(guard, policy)


def question(number: int) -> dict[str, Any]:
    return {"question": f"bomb {number}" if number % 5 == 0 else f"bread {number}"}


def expected(number: int) -> str:
    return "No." if number % 5 == 0 else f"You asked about bread {number}"


async def test_200_at_once_keep_their_answers() -> None:
    chain = chain_of(word_guard(), POLICY, delay=0.01)
    outputs = await asyncio.gather(*(chain.ainvoke(question(n)) for n in range(200)))
    assert [text_of(output) for output in outputs] == [expected(n) for n in range(200)]


async def test_100_streams_at_once_keep_their_answers() -> None:
    chain = chain_of(word_guard(), POLICY, pause=0.002)

    async def stream(number: int) -> str:
        return "".join([text_of(chunk) async for chunk in chain.astream(question(number))])

    texts = await asyncio.gather(*map(stream, range(100)))
    assert texts == [expected(n) for n in range(100)]


def test_32_threads_keep_their_answers() -> None:
    chain = chain_of(word_guard(), POLICY, delay=0.002)

    def work(number: int) -> list[str]:
        return [
            text_of(chain.invoke(question(number))),
            "".join(text_of(chunk) for chunk in chain.stream(question(number))),
            text_of(chain.batch([question(number), question(number + 1)])[0]),
        ]

    with ThreadPoolExecutor(32) as pool:
        results = [*pool.map(work, range(96))]
    assert results == [[expected(n)] * 3 for n in range(96)]


def test_threads_that_compose_chains_do_not_disturb_each_other() -> None:
    opening, closing = InputGuard(word_guard(), POLICY), OutputGuard(word_guard(), POLICY)
    start = threading.Barrier(16)

    def work(number: int) -> str:
        start.wait()
        for _ in range(20):
            chain = PROMPT | opening | (echo() | closing)
        return text_of(chain.invoke(question(number)))

    with ThreadPoolExecutor(16) as pool:
        assert [*pool.map(work, range(16))] == [expected(n) for n in range(16)]


def test_sync_calls_inside_a_running_loop() -> None:
    async def main() -> str:
        return text_of(chain_of(word_guard(), POLICY).invoke(question(1)))

    assert asyncio.run(main()) == expected(1)


@pytest.fixture(scope="module")
def embedded() -> Any:
    guard: Any = load_guard("embedded")
    return guard


class TestTheEmbeddedGuard:
    async def test_checks_share_forward_passes(self, embedded: Any) -> None:
        chain = chain_of(embedded)
        before = dict(embedded.stats)
        outputs = await asyncio.gather(
            *(chain.ainvoke({"question": f"How do I bake bread number {n}?"}) for n in range(200))
        )
        for number, output in enumerate(outputs):
            assert f"bread number {number}?" in text_of(output)
        checks = embedded.stats["checks"] - before["checks"]
        passes = embedded.stats["passes"] - before["passes"]
        assert checks == 400
        assert passes < checks / 2

    def test_threads_share_forward_passes(self, embedded: Any) -> None:
        chain = chain_of(embedded)
        before = dict(embedded.stats)
        with ThreadPoolExecutor(32) as pool:
            asked = [{"question": f"How do I bake bread number {n}?"} for n in range(64)]
            outputs = [*pool.map(chain.invoke, asked)]
        for number, output in enumerate(outputs):
            assert f"bread number {number}?" in text_of(output)
        checks = embedded.stats["checks"] - before["checks"]
        assert checks == 128
        assert embedded.stats["passes"] - before["passes"] < checks

    async def test_a_batch_is_one_call_for_each_side(self, embedded: Any) -> None:
        chain = chain_of(embedded)
        before = dict(embedded.stats)
        outputs = await chain.abatch([{"question": f"Bread {n}?"} for n in range(16)])
        assert len(outputs) == 16
        assert embedded.stats["checks"] - before["checks"] == 32
        assert embedded.stats["passes"] - before["passes"] < 16

    async def test_the_event_loop_is_not_blocked(self, embedded: Any) -> None:
        """No call holds the loop for over 50 ms beyond what the guard's own compute costs it.

        The compute runs in a worker thread, but shares the processors (and, between two kernels,
        Python's lock) with the loop. How much that alone delays the loop on this machine, at this
        moment, is measured first, with the same number of checks and no chain.
        """
        chain = chain_of(embedded)
        texts = [f"How do I bake bread number {n}?" for n in range(60)]
        await chain.ainvoke({"question": texts[0]})

        def compute() -> None:
            from langchain_safeguard import Conversation

            for side in ("input", "output"):
                value = [Conversation.of(text, side) for text in texts]  # type: ignore[arg-type]
                embedded.check(value, side)

        baseline, with_chain = [], []
        for _ in range(3):
            baseline.append(await _worst_lag(asyncio.to_thread(compute)))
            calls = (chain.ainvoke({"question": text}) for text in texts)
            with_chain.append(await _worst_lag(_one_by_one(calls)))
        assert min(with_chain) < min(baseline) + 0.05

    @pytest.mark.usefixtures("embedded")  # so that torch is imported: that does block, once
    async def test_loading_does_not_block_the_event_loop(self, tmp_path: Path) -> None:
        # A copy, since the checkpoint in the package may be loaded already.
        weights = Path(langchain_safeguard.__file__).parent / "embedded" / "weights"
        shutil.copytree(weights, tmp_path / "copy")
        chain = PROMPT | InputGuard(guard=tmp_path / "copy") | echo() | OutputGuard()
        begin = time.perf_counter()
        lag = await _worst_lag(chain.ainvoke({"question": "bread?"}))
        assert lag < (time.perf_counter() - begin) / 2


async def _one_by_one(calls: Any) -> None:
    """Keep four calls going, as a server would: starting all at once is work for the loop."""
    waiting = asyncio.Semaphore(4)

    async def one(call: Any) -> None:
        async with waiting:
            await call

    await asyncio.gather(*map(one, calls))


async def _worst_lag(work: Any) -> float:
    """Run something and return the longest time, in seconds, that the loop did not come around."""
    worst = 0.0
    done = asyncio.Event()

    async def watch() -> None:
        nonlocal worst
        while not done.is_set():
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            worst = max(worst, time.perf_counter() - before - 0.001)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0)
    await work
    done.set()
    await watching
    return worst
