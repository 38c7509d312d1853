"""Holding what was done in a task of a graph while a person decides, and finding it again."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from langchain_core.runnables import RunnableConfig

from langchain_safeguard.conversation import Conversation
from langchain_safeguard.decision import Decision
from langchain_safeguard.guards.base import Guard
from langchain_safeguard.holding.graph_task import Done, GraphTask, digest
from langchain_safeguard.holding.held import Held, HeldStore
from langchain_safeguard.policy import Action, Policy
from langchain_safeguard.taxonomy import Side

logger = logging.getLogger(__name__)

HELD_MESSAGE = "This answer is held for review."
"""What stands in place of an answer until a person has decided about it."""
LOST_MESSAGE = "This answer was lost while it was held for review. Please ask again."
"""What is answered if that answer is gone when they have."""

Interrupted = Callable[[Exception], None] | None


@dataclass(frozen=True, slots=True)
class Found:
    """What was held when the run was interrupted.

    Attributes:
        held: It, or `None` if it is gone.
        side: The side on which it was, or is to be, judged.
        key: What it was held under.
    """

    held: Held | None
    side: Side
    key: str

    def loss(self, text: str) -> Decision:
        """Return the decision about something that is gone."""
        return Decision(
            action=Action.BLOCK,
            text=text,
            side=self.side,
            verdicts=(),
            score=None,
            categories=(),
            rule="lost",
            decision_id=self.key[:16],
        )


@dataclass(frozen=True, slots=True)
class Waiting:
    """How one decision path asks people.

    Attributes:
        store: Where things wait.
        owner: What tells this path's questions from others about the same text.
        place: Where something is done about which this path asks, if there are several places.
        active: Whether there are handlers at all.
        interrupted: Takes a handler's interrupt where it may not end the run at once.
        patience: The seconds a handler or a rewriter may take; `None` waits for ever.
    """

    store: HeldStore
    owner: str
    place: str = ""
    active: bool = True
    interrupted: Interrupted = None
    patience: float | None = None

    @classmethod
    def of(
        cls,
        store: HeldStore,
        guards: Sequence[Guard],
        policy: Policy,
        *,
        active: bool,
        patience: float | None,
    ) -> Waiting:
        """Name a path by what judges in it."""
        facts = (policy.fingerprint, [guard.name for guard in guards])
        owner = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
        return cls(store, owner, active=active, patience=patience)

    def named(self, name: str, place: str = "", interrupted: Interrupted = None) -> Waiting:
        """Return the same for one of several who judge, at one of several places."""
        owner = f"{name}:{self.owner}"
        return replace(self, owner=owner, place=place, interrupted=interrupted)

    def task(self, config: RunnableConfig | None) -> GraphTask | None:
        """Return the task in which people can be asked, if there is one."""
        return GraphTask.of(config) if self.active else None

    def recall(
        self,
        value: object,
        *,
        side: Side,
        config: RunnableConfig | None = None,
        surely: bool = False,
    ) -> Found | None:
        """Find what was done here before the task was interrupted: it is not to be done again.

        Args:
            value: With what it is done, and anything in place of what comes of it.
            side: The side on which that is judged.
            config: The run's config.
            surely: Whether it must never be done again: then it is also found if the task began
                anew without having been interrupted.

        Returns:
            It, or that it is gone; `None` if it was not done.
        """
        fetch = self._sought(value, side, config, surely)
        return None if fetch is None else fetch()

    async def arecall(
        self,
        value: object,
        *,
        side: Side,
        config: RunnableConfig | None = None,
        surely: bool = False,
    ) -> Found | None:
        """Find what was done without blocking the event loop; see `recall`."""
        fetch = self._sought(value, side, config, surely)
        return None if fetch is None else await asyncio.to_thread(fetch)

    @contextmanager
    def working(self, config: RunnableConfig | None) -> Iterator[None]:
        """Let an interrupt of the task wait for what is done in here."""
        task = self.task(config)
        with nullcontext() if task is None else task.working():
            yield

    def note(self, value: object, *, side: Side, config: RunnableConfig | None, keep: Any) -> None:
        """Note that something was done that must never be done again, and hold what came of it.

        Args:
            value: As in `recall`.
            side: As in `recall`.
            config: As in `recall`.
            keep: What came of it.
        """
        task = self.task(config)
        if task is None:
            return
        done = task.did(self.what(value, side), keep, surely=True)
        if task.sent and not task.answers.interrupted:
            # Such tasks are many, and hardly ever do something after that.
            task.course.before_leaving = partial(self.hold, task)
            return
        task.answers.note(done.key)
        try:
            self.store.hold(done.key, Held((), done.value, waits=task.answers.interrupted))
        except Exception as error:
            logger.warning("what was done cannot be held: %s", type(error).__name__)

    def hold(self, task: GraphTask, own: Done | None = None) -> None:
        """Hold what was done for as long as the task waits.

        Args:
            task: The task.
            own: What a person is to be asked about.

        Raises:
            Exception: That cannot be held. Anything else that cannot is done again, or, if that
                must never be, is lost.
        """
        unheld = task.unheld()
        if own is not None and own not in unheld:
            unheld.append(own)
        for done in unheld:
            # What passed only spares asking again: it may go before what must not be lost.
            waits = done.surely or done is own
            try:
                self.store.hold(done.key, Held((), done.value, waits))
            except Exception as error:
                if done is own:
                    raise
                logger.warning("what was done cannot be held: %s", type(error).__name__)
            if waits:
                task.answers.note(done.key)

    def settle(self, key: str) -> None:
        """Note that something need not be held any longer."""
        try:
            self.store.settle(key)
        except Exception as error:
            # It stays there longer than it need be; what was decided holds.
            logger.error("could not note a decision: %s", type(error).__name__)

    def what(self, value: object, side: Side) -> str:
        """Return what tells the things done here from others, by what they are done with."""
        context = digest(Conversation.of(value, side), side, context=True)
        return f"{self.owner}|{self.place}|{side}|{context}"

    def _sought(
        self, value: object, side: Side, config: RunnableConfig | None, surely: bool
    ) -> Callable[[], Found | None] | None:
        task = self.task(config)
        if task is None:
            return None
        begun_anew = surely and not task.sent
        if surely:
            task.answers.stop()
        if not (task.answers.resumed or begun_anew):
            return None
        return partial(self._found, task, self.what(value, side), side, surely)

    def _found(self, task: GraphTask, what: str, side: Side, surely: bool) -> Found | None:
        key, known = task.next(what)
        held = self.store.get(key)
        if held is not None:
            task.recalled(what, key, held.value, known=known, surely=surely)
            self.settle(key)
        elif known:
            logger.error("what was held for a person's decision is gone (%s)", side)
        else:
            return None
        return Found(held, side, key)
