"""Asking a person by interrupting a LangGraph run, so that their word is about what they saw."""

from __future__ import annotations

import asyncio
from typing import Any

from langchain_core.runnables import RunnableConfig

from langchain_safeguard.calling import acall_handler, call_handler
from langchain_safeguard.conversation import Conversation
from langchain_safeguard.decision import Decision
from langchain_safeguard.errors import EscalationError
from langchain_safeguard.escalation.base import Escalation
from langchain_safeguard.holding.answers import Asker, BusyError, outcome
from langchain_safeguard.holding.entries import Entry, Question
from langchain_safeguard.holding.graph_task import digest, is_control_flow
from langchain_safeguard.holding.held import Held
from langchain_safeguard.holding.waiting import Waiting
from langchain_safeguard.hushed import hushed, quiet
from langchain_safeguard.policy import Action
from langchain_safeguard.taxonomy import Side
from langchain_safeguard.verdict import Verdict


class Deferred:
    """Says that a handler interrupts the run, and that this is done later."""


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
        self._task = task = waiting.task(config)
        self._before: Entry | None = None
        if task is not None and task.answers.resumed:
            self._before = task.answers.find(waiting.owner, side, digest(conversation, side))
        self._asked = None if self._before is None else self._before.question
        self._done = None
        if task is not None and keep is not None:
            self._done = task.judging(waiting.what(conversation, side), keep)

    @property
    def lingers(self) -> bool:
        """Tell whether `known` and `close` have something to do."""
        return self._asked is not None or self._is_late

    def known(self) -> tuple[Verdict, ...] | None:
        """Return what the guards saw when a person was asked about this before."""
        if self._task is None or self._asked is None:
            return None
        held = self._waiting.store.get(self._task.key(self._asked))
        return None if held is None else tuple(verdict.remembered() for verdict in held.verdicts)

    def call(self, function: Any, argument: Any) -> Any:
        """Call a handler or a rewriter."""
        while True:
            inside, asker = self._inside(argument)
            try:
                # They read the unsafe text: nobody watches them do it.
                with quiet(inside):
                    try:
                        return call_handler(function, argument, inside, self._waiting.patience)
                    except Exception as error:
                        interrupt = self._interrupt(error, argument, asker)
                if isinstance(interrupt, BusyError):
                    interrupt = outcome(interrupt.interrupt)
                if interrupt is not None:
                    self._hold(argument.decision, asker, interrupt)
                    return self._leave(interrupt)
            finally:
                if asker is not None:
                    # Also if it was cancelled: others may wait to hear of it.
                    asker.end()
            # Another question came first, but was not asked in the end.
            self._before = None if asker is None else asker.entry

    async def acall(self, function: Any, argument: Any) -> Any:
        """Call a handler or a rewriter without blocking the event loop."""
        while True:
            inside, asker = self._inside(argument)
            try:
                with quiet(inside):
                    try:
                        patience = self._waiting.patience
                        return await acall_handler(function, argument, inside, patience)
                    except Exception as error:
                        interrupt = self._interrupt(error, argument, asker)
                if isinstance(interrupt, BusyError):
                    interrupt = await asyncio.wrap_future(interrupt.interrupt)
                if interrupt is not None:
                    await asyncio.to_thread(self._hold, argument.decision, asker, interrupt)
                    if self._task is not None:
                        # Code such as `gather` would leave them, and what comes of them, alone.
                        await self._task.others()
                    return self._leave(interrupt)
            finally:
                if asker is not None:
                    # Also if it was cancelled: others may wait to hear of it.
                    asker.end()
            # Another question came first, but was not asked in the end.
            self._before = None if asker is None else asker.entry

    def close(self, decision: Decision) -> None:
        """Note that it is decided about."""
        if self._task is None or decision.action is Action.ESCALATE:
            return
        if self._is_late:
            self._waiting.hold(self._task)
        if self._asked is not None:
            self._waiting.settle(self._task.key(self._asked))

    @property
    def _is_late(self) -> bool:
        """Tell whether something beside this interrupts the task already."""
        return self._task is not None and self._task.answers.interrupted

    def _inside(self, argument: object) -> tuple[RunnableConfig, Asker | None]:
        inside = hushed(self.config)
        if self._task is None or not isinstance(argument, Escalation):
            return inside, None
        asker = Asker(self._task.answers, self._question(argument.decision), self._entry)
        return self._task.asking(asker, inside), asker

    def _entry(self) -> Entry | None:
        """Return what was asked about this before: first, and then by the next handler."""
        entry, self._before = self._before, None
        if entry is None and self._task is not None and self._asked is not None:
            asked = self._asked
            entry = self._task.answers.find(asked.owner, asked.side, asked.whole)
        return entry

    def _interrupt(
        self, error: Exception, argument: object, asker: Asker | None
    ) -> Exception | None:
        """Tell a handler's interrupt from a failure, which is raised."""
        if not isinstance(argument, Escalation):
            raise error
        if isinstance(error, BusyError):
            return error
        if not is_control_flow(error):
            raise error
        try:
            if asker is not None:
                # A handler may be a graph, whose own interrupt sets no mark.
                asker.begin()
        except BusyError as busy:
            return busy
        return error

    def _hold(self, decision: Decision, asker: Asker | None, interrupt: Exception) -> None:
        """Hold what is in question.

        Raises:
            EscalationError: It cannot be held.
        """
        if self._task is None or asker is None:
            if self._keep is None and self._waiting.interrupted is None:
                return
            raise EscalationError(
                "it interrupts the run, which is not saved: the graph needs a checkpointer, and "
                "the run a 'thread_id'"
            )
        try:
            if self._task.answers.asking is asker:
                question = self._task.key(self._question(decision))
                self._waiting.store.hold(question, Held(decision.verdicts))
            self._waiting.hold(self._task, self._done)
        except Exception as error:
            raise EscalationError(
                f"what it is asked about cannot be held ({type(error).__name__})"
            ) from None
        asker.end(interrupt)

    def _leave(self, interrupt: Exception) -> Deferred:
        """Interrupt the run, at once or later."""
        if self._waiting.interrupted is None:
            raise interrupt
        self._waiting.interrupted(interrupt)
        return Deferred()

    def _question(self, decision: Decision) -> Question:
        whole = digest(self.conversation, self.side)
        return Question(self._waiting.owner, self.side, whole, decision.decision_id)
