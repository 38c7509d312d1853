"""Asking a person by interrupting a LangGraph run, so that their word is about what they saw."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config

from langchain_safeguard.calling import acall_handler, call_handler
from langchain_safeguard.conversation import Conversation
from langchain_safeguard.decision import Decision
from langchain_safeguard.errors import EscalationError
from langchain_safeguard.escalation.base import Escalation
from langchain_safeguard.guards.base import Guard
from langchain_safeguard.holding.graph_task import GraphTask, Question, digest, is_control_flow
from langchain_safeguard.holding.held import Held, HeldStore
from langchain_safeguard.hushed import hushed, quiet
from langchain_safeguard.policy import Action, Policy
from langchain_safeguard.taxonomy import Side
from langchain_safeguard.verdict import Verdict

logger = logging.getLogger(__name__)

HELD_MESSAGE = "This answer is held for review."
"""What stands in place of an answer until a person has decided about it."""
LOST_MESSAGE = "This answer was lost while it was held for review. Please ask again."
"""What is answered if that answer is gone when they have."""

Interrupted = Callable[[Exception], None]


class Deferred:
    """Says that a handler interrupts the run, and that this is done later."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was held when the run was interrupted.

    Attributes:
        held: It, or `None` if it is gone.
        question: What a person was asked about it.
    """

    held: Held | None
    question: Question

    def loss(self, text: str) -> Decision:
        """Return the decision about something that is gone."""
        return Decision(
            action=Action.BLOCK,
            text=text,
            side=self.question.side,
            verdicts=(),
            score=None,
            categories=(),
            rule="lost",
            decision_id=self.question.decision_id,
        )


@dataclass(frozen=True, slots=True)
class Waiting:
    """How one decision path asks people.

    Attributes:
        store: Where things wait.
        owner: What tells this path's questions from others about the same text.
        active: Whether there are handlers at all.
        interrupted: Takes a handler's interrupt where it may not end the run at once.
        patience: The seconds a handler or a rewriter may take; `None` waits for ever.
    """

    store: HeldStore
    owner: str
    active: bool = True
    interrupted: Interrupted | None = None
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
        return cls(store, owner, active, patience=patience)

    def named(self, name: str, interrupted: Interrupted | None = None) -> Waiting:
        """Return the same for one of several places at which this path judges."""
        return replace(self, owner=f"{name}:{self.owner}", interrupted=interrupted)

    def recall(
        self,
        value: object,
        *,
        side: Side,
        config: RunnableConfig | None = None,
        ahead: bool = False,
    ) -> Found | None:
        """Find what was held here when a person was asked, and the run was interrupted.

        Args:
            value: What led to the text in question, and anything in place of that.
            side: The side on which it was judged.
            config: The run's config.
            ahead: Whether a step that is not run again may have asked something else before.

        Returns:
            It, or that it is gone; `None` if nothing was held.
        """
        fetch = self._sought(value, side, config, ahead)
        return None if fetch is None else fetch()

    async def arecall(
        self,
        value: object,
        *,
        side: Side,
        config: RunnableConfig | None = None,
        ahead: bool = False,
    ) -> Found | None:
        """Find what was held without blocking the event loop; see `recall`."""
        fetch = self._sought(value, side, config, ahead)
        return None if fetch is None else await asyncio.to_thread(fetch)

    def note(self, value: object, *, side: Side, config: RunnableConfig | None, keep: Any) -> None:
        """Hold what was done, in case something beside it interrupts the same task.

        See `noted`.
        """
        task = self._shared(config)
        if task is None:
            return
        key = task.key(self._unasked(value, side))
        try:
            self.store.hold(key, Held((), keep))
            self.store.settle(key)
        except Exception as error:
            logger.warning("what was done may be done again: %s", type(error).__name__)

    def noted(self, value: object, *, side: Side, config: RunnableConfig | None) -> Any:
        """Return what was done here before the task was interrupted; `None` if nothing was."""
        task = self._shared(config)
        held = None if task is None else self.store.get(task.key(self._unasked(value, side)))
        return None if held is None else held.value

    def _shared(self, config: RunnableConfig | None) -> GraphTask | None:
        task = GraphTask.of(ensure_config(config)) if self.active else None
        return None if task is None or task.sent else task

    def _unasked(self, value: object, side: Side) -> Question:
        context = digest(Conversation.of(value, side), side, context=True)
        return Question(self.owner, side, context, whole="", decision_id="")

    def _sought(
        self, value: object, side: Side, config: RunnableConfig | None, ahead: bool
    ) -> Callable[[], Found] | None:
        task = GraphTask.of(ensure_config(config)) if self.active else None
        if task is None or not task.resumed:
            return None
        place = self._unasked(value, side)
        question = task.sought(lambda q: replace(q, whole="", decision_id="") == place, ahead=ahead)
        return None if question is None else partial(self._found, task, question)

    def _found(self, task: GraphTask, question: Question) -> Found:
        held = self.store.get(task.key(question))
        if held is None:
            logger.error("what was held for a person's decision is gone (%s)", question.side)
            task.skip()
        return Found(held, question)


class Asking:
    """One text, about which handlers are asked.

    Args:
        waiting: How people are.
        conversation: The conversation with the text.
        side: The side that is judged.
        config: The run's config.
        keep: What is to be held while a person decides.

    Attributes:
        conversation: The conversation.
        side: The side.
        config: The config.
        before: What a person was asked about it before the run was interrupted.
    """

    def __init__(
        self,
        waiting: Waiting,
        conversation: Conversation,
        side: Side,
        config: RunnableConfig | None,
        keep: Any = None,
    ) -> None:
        """Store."""
        self._waiting = waiting
        self.conversation = conversation
        self.side = side
        self.config = config
        self._keep = keep
        self._task = GraphTask.of(ensure_config(config)) if waiting.active else None
        self.before = self._at_hand()

    def known(self) -> tuple[Verdict, ...] | None:
        """Return what the guards saw then."""
        if self._task is None or self.before is None:
            return None
        held = self._waiting.store.get(self._task.key(self.before))
        return None if held is None else held.verdicts

    def call(self, function: Any, argument: Any) -> Any:
        """Call a handler or a rewriter."""
        inside, interrupt = self._inside(argument), None
        # They read the unsafe text: nobody watches them do it.
        with quiet(inside):
            try:
                return call_handler(function, argument, inside, self._waiting.patience)
            except Exception as error:
                if not (isinstance(argument, Escalation) and is_control_flow(error)):
                    raise
                interrupt = error
        return self._wait(argument.decision, interrupt)

    async def acall(self, function: Any, argument: Any) -> Any:
        """Call a handler or a rewriter without blocking the event loop."""
        inside, interrupt = self._inside(argument), None
        with quiet(inside):
            try:
                return await acall_handler(function, argument, inside, self._waiting.patience)
            except Exception as error:
                if not (isinstance(argument, Escalation) and is_control_flow(error)):
                    raise
                interrupt = error
        return await asyncio.to_thread(self._wait, argument.decision, interrupt)

    def close(self, decision: Decision) -> None:
        """Note that it is decided about, and pass over a question that was not asked again."""
        if self._task is None or self.before is None or decision.action is Action.ESCALATE:
            return
        if self._at_hand() is not None:
            self._task.skip()
        try:
            self._waiting.store.settle(self._task.key(self.before))
        except Exception as error:
            # It stays there longer than it need be; what was decided holds.
            logger.error("could not note a decision: %s", type(error).__name__)

    def _inside(self, argument: object) -> RunnableConfig:
        inside = hushed(self.config)
        task = GraphTask.of(inside)
        if task is None or not isinstance(argument, Escalation):
            return inside
        return task.asking(self._question(argument.decision))

    def _wait(self, decision: Decision, interrupt: Exception) -> Deferred:
        """Hold what is in question, and interrupt the run, at once or later.

        Raises:
            EscalationError: It cannot be held.
        """
        if self._task is None:
            if self._keep is None and self._waiting.interrupted is None:
                raise interrupt
            raise EscalationError(
                "it interrupts the run, which is not saved: the graph needs a checkpointer, and "
                "the run a 'thread_id'"
            )
        question = self._question(decision)
        try:
            self._waiting.store.hold(self._task.key(question), Held(decision.verdicts, self._keep))
        except Exception as error:
            self._task.take_back(question)
            raise EscalationError(
                f"what it is asked about cannot be held ({type(error).__name__})"
            ) from None
        if self._waiting.interrupted is None:
            raise interrupt
        self._waiting.interrupted(interrupt)
        return Deferred()

    def _question(self, decision: Decision) -> Question:
        return Question(
            owner=self._waiting.owner,
            side=self.side,
            context=digest(self.conversation, self.side, context=True),
            whole=digest(self.conversation, self.side),
            decision_id=decision.decision_id,
        )

    def _at_hand(self) -> Question | None:
        question = self._task.question() if self._task is not None else None
        if question is None or (question.owner, question.side) != (self._waiting.owner, self.side):
            return None
        return question if question.whole == digest(self.conversation, self.side) else None
