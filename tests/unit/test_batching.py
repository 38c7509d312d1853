"""Many callers, one forward pass: nobody gets another's answer, a bad item fails alone."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from langchain_safeguard.engines import MicroBatcher


def _double(items: Sequence[int]) -> list[int]:
    time.sleep(0.005)
    return [2 * item for item in items]


def test_every_thread_gets_its_own_answer_in_fewer_passes() -> None:
    batcher = MicroBatcher[int, int](_double, name="test")
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda n: batcher.submit(n).result(), range(400)))
    assert answers == [2 * n for n in range(400)]
    assert batcher.items == 400
    assert batcher.passes < 200


async def test_every_coroutine_gets_its_own_answer_in_fewer_passes() -> None:
    batcher = MicroBatcher[int, int](_double, name="test")
    answers = await asyncio.gather(*(asyncio.wrap_future(batcher.submit(n)) for n in range(400)))
    assert answers == [2 * n for n in range(400)]
    assert batcher.passes < 40


def test_a_batch_is_no_larger_than_the_limit() -> None:
    sizes: list[int] = []

    def run(items: Sequence[int]) -> list[int]:
        sizes.append(len(items))
        return _double(items)

    batcher = MicroBatcher[int, int](run, limit=8, name="test")
    for future in [batcher.submit(n) for n in range(50)]:
        future.result()
    assert max(sizes) <= 8


@pytest.mark.parametrize("bad", [0, 7, 15])
def test_a_bad_item_fails_alone(bad: int) -> None:
    def run(items: Sequence[int]) -> list[int]:
        time.sleep(0.005)
        return [100 // (item - bad) for item in items]

    batcher = MicroBatcher[int, int](run, name="test")
    futures = [batcher.submit(n) for n in range(16)]
    for n, future in enumerate(futures):
        if n == bad:
            assert isinstance(future.exception(), ZeroDivisionError)
        else:
            assert future.result() == 100 // (n - bad)


def test_a_wrong_number_of_answers_is_an_error_not_a_mix_up() -> None:
    batcher = MicroBatcher[int, int](lambda items: [1, 2, 3], name="test")
    assert isinstance(batcher.submit(1).exception(), RuntimeError)


def test_a_cancelled_item_is_not_run() -> None:
    ran: list[int] = []
    release = threading.Event()

    def run(items: Sequence[int]) -> list[int]:
        release.wait(5)
        ran.extend(items)
        return list(items)

    batcher = MicroBatcher[int, int](run, name="test")
    first = batcher.submit(1)
    while batcher.passes == 0:
        time.sleep(0.001)
    cancelled, last = batcher.submit(2), batcher.submit(3)
    assert cancelled.cancel()
    release.set()
    assert (first.result(5), last.result(5)) == (1, 3)
    assert ran == [1, 3]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_gets_a_worker_of_its_own() -> None:
    batcher = MicroBatcher[int, int](_double, name="test")
    assert batcher.submit(1).result(5) == 2
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if batcher.submit(2).result(5) == 4 else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
