"""Many callers, one forward pass."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from inspect import ismethod
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_LAST_BATCH = 10.0
"""How many seconds the end of the process waits for the batch that is running."""


class MicroBatcher(Generic[Item, Result]):
    """Runs what many threads and coroutines ask for in common batches, in one worker thread.

    It never waits for a batch to fill: while one batch runs, the next one gathers by itself, so a
    lone caller pays no delay. Results go to whoever asked; if a batch fails its items are run one
    by one, so that a bad item fails alone. The thread ends when nobody holds the batcher and all
    that was asked is answered.

    Args:
        run: Answers several items in one go, in their order. Of a method, its object is held only
            as long as items are queued: whoever has a batcher for its own method is freed at once
            when nobody holds it any more.
        limit: The most items in one batch.
        name: The worker thread's name.
    """

    def __init__(
        self, run: Callable[[Sequence[Item]], Sequence[Result]], *, limit: int = 32, name: str
    ) -> None:
        """Store; the worker starts with the first item."""
        self._run = weakref.WeakMethod(run) if ismethod(run) else lambda: run
        self.limit = limit
        self._name = name
        self._lock = threading.Lock()
        self._worker: _Worker | None = None
        self.items = 0
        """How many items were run."""
        self.passes = 0
        """In how many batches."""
        self.sizes = [0] * (limit + 1)
        """How many of them were of each size, from 0 on."""

    def submit(self, item: Item) -> Future[Result]:
        """Queue an item; the future can be waited for, awaited and cancelled."""
        run = self._run()
        if run is None:
            raise RuntimeError("the object whose method runs the items is gone")
        job = _Job(self, run, item, Future[Result]())
        with self._lock:
            if self._worker is None or self._worker.process != os.getpid():
                # The first item, or the first one after a fork, which threads do not survive.
                self._worker = _Worker(self._name)
                weakref.finalize(self, self._worker.end)
            self._worker.queue.put(job)
        return job.future

    def answer(self, batch: list[_Job[Item, Result]]) -> None:
        """Run a batch, and use the list up; called by the worker."""
        if not batch:
            return
        self.passes += 1
        self.sizes[len(batch)] += 1
        try:
            results = batch[0].run([job.item for job in batch])
            if len(results) != len(batch):
                raise RuntimeError(f"{len(batch)} items gave {len(results)} results")
        except Exception as error:
            if len(batch) == 1:
                self.items += 1
                # Taken out, here and below: the error holds these frames, and through the future
                # it would hold itself, and the model.
                batch.pop().future.set_exception(error)
                return
        else:
            self.items += len(batch)
            for job, result in zip(batch, results, strict=True):
                job.future.set_result(result)
            batch.clear()
        while batch:
            self.answer([batch.pop(0)])


@dataclass(frozen=True, slots=True)
class _Job(Generic[Item, Result]):
    """An item in the queue: it holds all that it needs, so that its asker need not."""

    batcher: MicroBatcher[Item, Result]
    run: Callable[[Sequence[Item]], Sequence[Result]]
    item: Item
    future: Future[Result]


class _Worker:
    """A thread that takes jobs from a queue; between batches it holds nothing but that."""

    def __init__(self, name: str) -> None:
        """Start the thread."""
        self.process = os.getpid()
        self.queue: SimpleQueue[_Job[Any, Any] | None] = SimpleQueue()
        self._running = threading.Lock()
        self._ended = False
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def end(self) -> None:
        """End the thread, when its batcher is gone or the process ends.

        A batch that is running ends first: cut off inside torch, it would abort the process.
        """
        if self.process != os.getpid():
            return
        self._ended = True
        self.queue.put(None)
        if self._running.acquire(timeout=_LAST_BATCH):
            self._running.release()

    def _work(self) -> None:
        while batch := self._batch():
            with self._running:
                if self._ended:
                    return
                batcher = batch[0].batcher
                batch[:] = [job for job in batch if job.future.set_running_or_notify_cancel()]
                batcher.answer(batch)
            del batcher

    def _batch(self) -> list[_Job[Any, Any]]:
        """Wait for jobs; none come any more if the list is empty."""
        batch: list[_Job[Any, Any]] = []
        limit = 1
        while len(batch) < limit:
            try:
                job = self.queue.get(block=not batch)
            except Empty:
                break
            if job is None:
                return []
            batch.append(job)
            limit = job.batcher.limit
        return batch
