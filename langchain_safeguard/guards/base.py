"""What a guard is.

A user's own guard subclasses `Guard` and writes `check`. A guard model is a `ModelGuard`: an engine
that runs it and a `Family` that knows how it is asked and read.
"""

from __future__ import annotations

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from langchain_safeguard.conversation import Conversation
from langchain_safeguard.engines import Engine
from langchain_safeguard.engines.base import Answer, Question
from langchain_safeguard.errors import ConfigurationError, GuardTimeoutError
from langchain_safeguard.guards.family import Family
from langchain_safeguard.guards.windows import LEAST_ROOM, Window, fit, riskiest
from langchain_safeguard.taxonomy import SIDES, Category, Side
from langchain_safeguard.threads import in_thread
from langchain_safeguard.verdict import Verdict

T = TypeVar("T")


class Guard(ABC):
    """Judges conversations."""

    name: str
    """What it is called in verdicts and records."""
    revision: str | None = None
    """Which version of its weights judges, where known."""
    fingerprint: str | None = None
    """All that decides its verdicts besides kind, name and revision, such as its options, where it
    can be said. Verdicts are remembered (see `VerdictCache`) for all guards that say the same;
    otherwise for this object alone. A guard that does not give the same verdict on the same text
    again needs `Safeguard(cache=None)`."""
    categories: frozenset[Category] = frozenset(Category)
    """All it can report. A policy that names another category is an error."""
    sides: frozenset[Side] = frozenset(SIDES)
    """The sides it can judge; on others it is not asked."""

    @abstractmethod
    def check(self, conversations: Sequence[Conversation], side: Side) -> list[Verdict]:
        """Judge the `side` part of each conversation, in their order.

        It is called from many threads at once. Whatever it raises counts as "could not judge".
        """

    def reads(self, conversation: Conversation, side: Side) -> object:
        """Return all of a conversation that decides the verdict.

        Verdicts are remembered by it: two conversations of which it has the same `repr` get the
        same verdict. By default that is all turns.
        """
        return [
            (turn.role, turn.text, turn.unchecked, turn.preamble) for turn in conversation.turns
        ]

    def check_within(
        self, conversations: Sequence[Conversation], side: Side, seconds: float | None
    ) -> list[Verdict]:
        """Judge, but do not let the caller wait longer than that; `None` waits for ever.

        Raises:
            GuardTimeoutError: It takes longer. The work may go on in a thread of its own.
        """
        if seconds is None:
            return self.check(conversations, side)
        call = in_thread(lambda: self.check(conversations, side), f"guard-{self.name}")
        return result_within(call, seconds)

    async def acheck(self, conversations: Sequence[Conversation], side: Side) -> list[Verdict]:
        """Judge without blocking the event loop; by default in a thread."""
        call = in_thread(lambda: self.check(conversations, side), f"guard-{self.name}")
        return await asyncio.wrap_future(call)


@dataclass(frozen=True, slots=True)
class _Job(Generic[Answer]):
    """What was asked about one window of one conversation."""

    window: Window
    answers: Sequence[Future[Answer]]


class ModelGuard(Guard, Generic[Question, Answer]):
    """A guard around a model that an engine runs; concurrent calls share its batches.

    Texts too long for the model are judged in windows that overlap; the riskiest decides.

    Args:
        engine: What runs the model.
        family: How it is asked and read.
        name: What it is called in verdicts; the family's name if left out.
        revision: Which version of its weights judges, where known.
        fingerprint: What else decides its verdicts: see `Guard`.
    """

    def __init__(
        self,
        engine: Engine[Question, Answer],
        family: Family[Question, Answer],
        *,
        name: str | None = None,
        revision: str | None = None,
        fingerprint: str | None = None,
    ) -> None:
        """Store."""
        self.engine = engine
        self.family = family
        self.name = name or family.name
        self.revision = revision
        self.fingerprint = fingerprint
        self.categories = family.categories
        self.sides = family.sides

    def __deepcopy__(self, memo: object) -> ModelGuard[Question, Answer]:
        """Return the guard itself, for copies of chains: weights are loaded once."""
        return self

    def reads(self, conversation: Conversation, side: Side) -> object:
        """Return what the model is asked, unless long conversations are cut to ask it."""
        if self.engine.limit is None:
            return self.family.render(conversation, side)
        return super().reads(conversation, side)

    def check(self, conversations: Sequence[Conversation], side: Side) -> list[Verdict]:
        """Judge in common batches with all other callers."""
        return self.check_within(conversations, side, None)

    def check_within(
        self, conversations: Sequence[Conversation], side: Side, seconds: float | None
    ) -> list[Verdict]:
        """Judge in common batches with all other callers, but wait no longer than that."""
        begin = time.perf_counter()
        verdicts = []
        asked: list[list[_Job[Answer]]] = []
        try:
            self._ask(
                conversations,
                side,
                asked,
                lambda: seconds is not None and time.perf_counter() > begin + seconds,
            )
            for jobs in asked:
                answered = []
                for job in jobs:
                    found = [
                        result_within(
                            answer,
                            None if seconds is None else begin + seconds - time.perf_counter(),
                        )
                        for answer in job.answers
                    ]
                    answered.append((job.window, found))
                verdicts.append(self._verdict(answered, side, begin))
        finally:
            _forget(asked)
        return verdicts

    async def acheck(self, conversations: Sequence[Conversation], side: Side) -> list[Verdict]:
        """Judge in common batches with all other callers."""
        begin = time.perf_counter()
        verdicts = []
        asked: list[list[_Job[Answer]]] = []
        left = threading.Event()
        try:
            # Tokenizing a long text takes time; the event loop goes on meanwhile.
            await asyncio.to_thread(self._ask, conversations, side, asked, left.is_set)
            for jobs in asked:
                answered = []
                for job in jobs:
                    found = await asyncio.gather(*map(asyncio.wrap_future, job.answers))
                    answered.append((job.window, found))
                verdicts.append(self._verdict(answered, side, begin))
        finally:
            left.set()
            _forget(asked)
        return verdicts

    def probe(self) -> None:
        """Make sure that the model can be asked.

        Raises:
            GuardLoadError: Its vocabulary has not the words of the answers that are read.
            ConfigurationError: What the guard says itself leaves no room for a text.
        """
        limit = self.engine.limit
        for side in sorted(self.sides):
            for prompt in self.family.render(Conversation.of("Hello", side), side):
                self.engine.require(prompt)
                if limit is None:
                    continue
                size = self.engine.measure(prompt)
                if size + LEAST_ROOM > limit:
                    raise ConfigurationError(
                        f"{self.name} has a prompt of {size} tokens, which leaves no room for a "
                        "text: give a greater max_tokens, if the model can read more, or a "
                        "shorter policy"
                    )

    @property
    def batch_sizes(self) -> Sequence[int]:
        """Return how many batches there were of each size, from 0 on."""
        return tuple(self.engine.queue.sizes)

    @property
    def stats(self) -> dict[str, int]:
        """Return how many questions were asked so far, and in how many batches.

        Of a language model that keeps what it has read also the `tokens` it was asked, and the
        `computed_tokens` that it had not read before.
        """
        queue = self.engine.queue
        return {"checks": queue.items, "passes": queue.passes, **self.engine.counts()}

    def _ask(
        self,
        conversations: Sequence[Conversation],
        side: Side,
        asked: list[list[_Job[Answer]]],
        late: Callable[[], bool],
    ) -> None:
        """Queue all questions about all windows.

        Args:
            conversations: What is judged.
            side: Which part of it.
            asked: Where to put what was queued, per conversation.
            late: Tells whether nobody waits any more.

        Raises:
            GuardTimeoutError: Nobody waits any more; nothing stays in the queue.
        """

        def in_time() -> None:
            if late():
                raise GuardTimeoutError("no verdict in time")

        rendered = []
        for conversation in conversations:
            questions = []
            for window in self._windows(conversation, side, in_time):
                in_time()
                questions.append((window, self.family.render(window.conversation, side)))
            rendered.append(questions)
        try:
            for questions in rendered:
                asked.append([])
                for window, each in questions:
                    asked[-1].append(_Job(window, [*map(self.engine.submit, each)]))
                    in_time()
        except GuardTimeoutError:
            _forget(asked)
            raise

    def _windows(
        self, conversation: Conversation, side: Side, in_time: Callable[[], None]
    ) -> list[Window]:
        engine = self.engine
        if engine.limit is None:
            return [Window(conversation)]

        def measure(part: Conversation) -> int:
            in_time()
            return max(map(engine.measure, self.family.render(part, side)))

        def offsets(text: str) -> list[tuple[int, int]]:
            in_time()
            return engine.offsets(text)

        return fit(conversation, side, measure=measure, offsets=offsets, limit=engine.limit)

    def _verdict(
        self, answered: Sequence[tuple[Window, Sequence[Answer]]], side: Side, begin: float
    ) -> Verdict:
        verdicts = [(window, self.family.read(found, side)) for window, found in answered]
        verdict = riskiest(verdicts)
        latency = (time.perf_counter() - begin) * 1000
        return replace(verdict, guard=self.name, revision=self.revision, latency_ms=latency)


def _forget(asked: Sequence[Sequence[_Job[Answer]]]) -> None:
    """Take back what nobody waits for any more; what is answered or being answered stays so."""
    for jobs in asked:
        for job in jobs:
            for answer in job.answers:
                answer.cancel()


def result_within(future: Future[T], seconds: float | None) -> T:
    """Wait for a result, but no longer than that.

    Raises:
        GuardTimeoutError: It is not there in time; it is cancelled if it has not begun.
    """
    try:
        return future.result(None if seconds is None else max(seconds, 0))
    except TimeoutError:
        if future.done():
            raise
        future.cancel()
        raise GuardTimeoutError("no verdict in time") from None
