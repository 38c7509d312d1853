"""Many callers, one forward pass."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_LAST_BATCH = 10.0
"""How many seconds the end of the process waits for the batch that is running."""


class MicroBatcher(Generic[Item, Result]):
    """Runs what many threads and coroutines ask for in common batches, in one worker thread.

    It never waits for a batch to fill: while one batch runs, the next one gathers by itself, so a
    lone caller pays no delay. Results go to whoever asked; if a batch fails its items are run one
    by one, so that a bad item fails alone.

    Args:
        run: Answers several items in one go, in their order.
        limit: The most items in one batch.
        name: The worker thread's name.
    """

    def __init__(
        self, run: Callable[[Sequence[Item]], Sequence[Result]], *, limit: int = 32, name: str
    ) -> None:
        """Store; the worker starts with the first item."""
        self._run = run
        self._limit = limit
        self._name = name
        self._lock = threading.Lock()
        self._queue: SimpleQueue[tuple[Item, Future[Result]]] = SimpleQueue()
        self._process: int | None = None
        self._running = threading.Lock()
        self._ended = False
        self.items = 0
        """How many items were run."""
        self.passes = 0
        """In how many batches."""
        self.sizes = [0] * (limit + 1)
        """How many of them were of each size, from 0 on."""

    def submit(self, item: Item) -> Future[Result]:
        """Queue an item; the future can be waited for, awaited and cancelled."""
        future: Future[Result] = Future()
        with self._lock:
            if self._process != os.getpid():
                # The first item, or the first one after a fork, which threads do not survive.
                self._queue = SimpleQueue()
                self._running = threading.Lock()
                self._process = os.getpid()
                atexit.register(self._end)
                worker = threading.Thread(
                    target=self._work, args=(self._queue,), name=self._name, daemon=True
                )
                worker.start()
            self._queue.put((item, future))
        return future

    def _work(self, queue: SimpleQueue[tuple[Item, Future[Result]]]) -> None:
        while True:
            batch = [queue.get()]
            while len(batch) < self._limit:
                try:
                    batch.append(queue.get_nowait())
                except Empty:
                    break
            with self._running:
                if self._ended:
                    return
                self._answer([job for job in batch if job[1].set_running_or_notify_cancel()])

    def _end(self) -> None:
        """Let the batch that is running end: cut off inside torch, it would abort the process."""
        self._ended = True
        if self._process == os.getpid() and self._running.acquire(timeout=_LAST_BATCH):
            self._running.release()

    def _answer(self, batch: list[tuple[Item, Future[Result]]]) -> None:
        if not batch:
            return
        self.passes += 1
        self.sizes[len(batch)] += 1
        try:
            results = self._run([item for item, _ in batch])
            if len(results) != len(batch):
                raise RuntimeError(f"{len(batch)} items gave {len(results)} results")
        except Exception as error:
            if len(batch) == 1:
                self.items += 1
                batch[0][1].set_exception(error)
                return
            for job in batch:
                self._answer([job])
            return
        self.items += len(batch)
        for (_, future), result in zip(batch, results, strict=True):
            future.set_result(result)
