"""One task of a LangGraph run: what was done in it, and what people are asked about it."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, is_dataclass, replace
from functools import partial
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config

from langchain_safeguard.conversation import Conversation
from langchain_safeguard.holding.answers import Answers, Asker, lock
from langchain_safeguard.holding.held import Outcome
from langchain_safeguard.hushed import holding
from langchain_safeguard.taxonomy import Side

_SCRATCHPAD = "__pregel_scratchpad"
_SEND = "__pregel_send"
_CHECKPOINTER = "__pregel_checkpointer"
_PUSHED = "__pregel_push"
_PASSING = 100
"""How many answers that passed are kept in case their task is interrupted later."""
_INSIDE: ContextVar[tuple[Future[None], ...]] = ContextVar("safeguard_inside", default=())
"""The work that whatever is done here is a part of."""


@dataclass(slots=True, eq=False)
class Done:
    """Something that was done in this run of a task, or in an earlier one.

    Attributes:
        what: With what it was done.
        key: What it is held under.
        source: The object that came of it.
        value: What is held: whoever gets the source may write into it.
        surely: Whether it must never be done again, even if what came of it is gone.
        held: Whether it is held for as long as the task waits.
    """

    what: str
    key: str
    source: Any
    value: Any
    surely: bool
    held: bool = False


@dataclass(slots=True, eq=False)
class Course:
    """One run of a task; it stands in the place of LangGraph's counter of interrupts.

    Attributes:
        answers: What was answered, and what is asked.
        sure: What was done and must never be done again.
        passing: What else was done last.
        unjudged: What of it is yet to be judged.
        counts: How often, by what it was done with.
        working: What is being done, and must not be left alone by an interrupt.
        before_leaving: Called before the task interrupts itself.
    """

    answers: Answers
    sure: list[Done] = field(default_factory=list)
    passing: deque[Done] = field(default_factory=partial(deque, maxlen=_PASSING))
    unjudged: defaultdict[tuple[str, int], list[Done]] = field(
        default_factory=partial(defaultdict, list)
    )
    counts: Counter[str] = field(default_factory=Counter)
    working: set[Future[None]] = field(default_factory=set)
    before_leaving: Callable[[], None] | None = None

    def __call__(self) -> int:
        """Return the number of an interrupt of the task itself."""
        if self.before_leaving is not None and self.answers.ended:
            self.before_leaving()
        return self.answers()

    def add(self, done: Done) -> None:
        """Note something that was done."""
        (self.sure if done.surely else self.passing).append(done)
        self.unjudged[done.what, id(done.source)].append(done)


class GraphTask:
    """One task of a LangGraph run that can be interrupted and go on later.

    Args:
        config: A config inside the task.
        course: The run of it.
    """

    def __init__(self, config: RunnableConfig, course: Course) -> None:
        """Store."""
        self._config = config
        self._place = config["configurable"]
        self.course = course
        self.answers = course.answers

    @classmethod
    def of(cls, config: RunnableConfig | None) -> GraphTask | None:
        """Find the task; `None` outside of one, or where nothing is saved."""
        config = ensure_config(config)
        place = config.get("configurable", {})
        scratchpad = place.get(_SCRATCHPAD)
        saved = place.get("thread_id") is not None and place.get(_CHECKPOINTER)
        if not saved or not is_dataclass(scratchpad) or _SEND not in place:
            return None
        counter: Any = getattr(scratchpad, "interrupt_counter", None)
        with lock:
            # A handler has a counter of its own: what it asks belongs to the question it is asked.
            course = getattr(counter, "_counter", counter)
            if course is counter:
                return None
            if not isinstance(course, Course):
                used = 0 if course is None else counter()
                course = counter._counter = Course(Answers(scratchpad, place[_SEND], used))
        return cls(config, course)

    @property
    def sent(self) -> bool:
        """Tell a task for one thing alone, such as one call of a tool, from a step of a graph."""
        return _PUSHED in self._config.get("metadata", {}).get("langgraph_triggers", ())

    def key(self, *facts: object) -> str:
        """Return what is the same for these facts when the task goes on, and for no other ones."""
        every = (self._place["thread_id"], self._place.get("checkpoint_ns"), *facts)
        return hashlib.sha256(repr(every).encode("utf-8", "backslashreplace")).hexdigest()

    def next(self, what: str) -> tuple[str, bool]:
        """Return the key of what is to be done, and whether it was done; then it is passed over.

        What is done twice with the same is done first and second.
        """
        with lock:
            key = self.key(what, self.course.counts[what])
            known = key in self.answers.done
            if known:
                self.course.counts[what] += 1
                # LangGraph saves only the front of the list when the task asks by itself.
                self.answers.save()
        return key, known

    def recalled(self, what: str, key: str, value: Any, *, known: bool, surely: bool) -> None:
        """Note that something was done in an earlier run, and is not done in this one."""
        with lock:
            self.course.counts[what] += not known
            self.course.add(Done(what, key, value, value, known or surely))

    def did(self, what: str, source: Any, *, surely: bool = False) -> Done:
        """Note that something was done."""
        with lock:
            key = self.key(what, self.course.counts[what])
            self.course.counts[what] += 1
            done = Done(what, key, source, _copied(source), surely)
            self.course.add(done)
            return done

    def judging(self, what: str, source: Any) -> Done:
        """Return what is known of something that is to be judged."""
        with lock:
            place = what, id(source)
            if place not in self.course.unjudged:
                self.did(what, source)
            done = self.course.unjudged[place].pop(0)
            if not self.course.unjudged[place]:
                del self.course.unjudged[place]
            return done

    @contextmanager
    def working(self) -> Iterator[None]:
        """Let an interrupt wait for what is done in here."""
        work: Future[None] = Future()
        work.set_running_or_notify_cancel()
        with lock:
            self.course.working.add(work)
        try:
            with holding(_INSIDE, (*_INSIDE.get(), work)):
                yield
        finally:
            with lock:
                self.course.working.discard(work)
            work.set_result(None)

    async def others(self) -> None:
        """Wait until all is done that is being done in the task, but for what this is a part of.

        Nobody waits for that any more: of two who wait, neither waits for the other one.
        """
        while True:
            with lock:
                self.course.working.difference_update(_INSIDE.get())
                left = [*self.course.working]
            if not left:
                return
            await asyncio.wait([asyncio.wrap_future(work) for work in left])

    def asking(self, asker: Asker, config: RunnableConfig) -> RunnableConfig:
        """Return a config in which a handler's interrupts are numbered by that."""
        place = config["configurable"]
        scratchpad = replace(place[_SCRATCHPAD], interrupt_counter=asker)
        inside = {**place, _SCRATCHPAD: scratchpad, _SEND: self.answers.send}
        return {**config, "configurable": inside}

    def unheld(self) -> list[Done]:
        """Return what was done and is not held yet; it is taken to be."""
        with lock:
            every = [*self.course.sure, *self.course.passing]
            found = [done for done in every if not done.held]
            for done in found:
                done.held = True
            return found


def digest(conversation: Conversation, side: Side, *, context: bool = False) -> str:
    """Return what tells a conversation from others, or what leads to its judged part."""
    turns = conversation.context(side) if context else conversation.turns
    facts = [(turn.role, turn.text, turn.unchecked) for turn in turns]
    return hashlib.sha256(repr(facts).encode("utf-8", "backslashreplace")).hexdigest()[:24]


def resumed(config: RunnableConfig) -> bool:
    """Tell whether this is inside of a task that has been interrupted, and now goes on."""
    task = GraphTask.of(config)
    return task is not None and task.answers.resumed


def is_control_flow(error: BaseException) -> bool:
    """Tell LangGraph's interrupts and commands, which are exceptions, from failures."""
    errors = sys.modules.get("langgraph.errors")
    return errors is not None and isinstance(error, errors.GraphBubbleUp)


def _copied(value: Any) -> Any:
    if isinstance(value, Outcome):
        return replace(value, result=_copied(value.result))
    return value.model_copy() if isinstance(value, BaseMessage) else value
