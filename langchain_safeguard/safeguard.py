"""The one decision path: whatever checks a text comes through `Safeguard`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from copy import copy
from itertools import repeat
from pathlib import Path
from typing import Any

from langchain_core.callbacks import adispatch_custom_event, dispatch_custom_event
from langchain_core.runnables import RunnableConfig

from langchain_safeguard.assembly import audit_of, cache_of, guards_of, handlers_of, policy_of
from langchain_safeguard.audit import AuditSink, audit_record, log_record
from langchain_safeguard.caching.verdict_cache import VerdictCache
from langchain_safeguard.calling import seconds_or_none
from langchain_safeguard.conversation import Conversation
from langchain_safeguard.decision import Decision, decide
from langchain_safeguard.errors import ConfigurationError
from langchain_safeguard.escalation.base import Handler, recalled
from langchain_safeguard.flow import Apply, Flow, Judge, Record, decision_flow
from langchain_safeguard.guard_caller import GuardCaller
from langchain_safeguard.guards.base import Guard
from langchain_safeguard.holding.asking import Asking
from langchain_safeguard.holding.held import HeldStore, store_of
from langchain_safeguard.holding.waiting import Interrupted, Waiting
from langchain_safeguard.plans import adrive, drive
from langchain_safeguard.policy import Policy
from langchain_safeguard.review.ticket import Recalled, tickets_of
from langchain_safeguard.taxonomy import Side, side_of
from langchain_safeguard.verdict import Verdict

EVENT = "safeguard_decision"
"""The name of the LangChain custom event that carries each record."""

logger = logging.getLogger(__name__)


class Safeguard:
    """Guards, a policy, handlers and an audit sink: decides what becomes of a text.

    Args:
        guard: A name, a folder, a guard, or several of these: then all judge, and the strictest
            rule over all their findings wins. The embedded guard if left out.
        policy: A policy, a dict, or the path of a YAML file; the default policy if left out.
        handlers: Who is asked when the policy escalates: a list, asked in this order, or a dict of
            names that rules can refer to.
        audit: Called with each record; by default it is logged. `None` turns it off.
        audit_text: Whether records hold the checked text. They do not, unless this is set.
        timeout: The seconds for a verdict, all attempts together; `None` waits for ever.
        attempts: How often a guard is asked when it fails for a transient reason.
        max_characters: A longer text is not judged, so that one request cannot keep the guard busy
            for minutes: its verdict is a failed one, and the policy's `on_failure` decides.
        handler_timeout: The seconds a handler or a rewriter may take; `None` waits for ever.
        cache: How many verdicts are remembered, so that no guard is asked twice about the same
            text; or a `VerdictCache` to share. `None` asks each time.
        held: Where answers and results wait while a handler asks a person by interrupting a
            LangGraph run: in this process (`HeldResults`), or in a database (`HeldDatabase`).

    Raises:
        ConfigurationError: A value is wrong, or the policy has a rule for a category that none of
            the guards can report; the message names it and what is allowed.
        GuardLoadError: A guard cannot be loaded.

    Example:
        ```python
        decision = Safeguard().check("How do I bake bread?")
        assert decision.passes
        ```
    """

    def __init__(
        self,
        guard: str | Path | Guard | Sequence[str | Path | Guard] | None = None,
        policy: Policy | Mapping[str, Any] | str | Path | None = None,
        *,
        handlers: Sequence[Handler] | Mapping[str, Handler] = (),
        audit: AuditSink | None = log_record,
        audit_text: bool = False,
        timeout: float | None = 60.0,
        attempts: int = 3,
        max_characters: int = 250_000,
        handler_timeout: float | None = 60.0,
        cache: VerdictCache | int | None = 4096,
        held: HeldStore | None = None,
    ) -> None:
        """Load the guards and check the policy against what they can report."""
        self.cache = cache_of(cache)
        self.guards = guards_of(guard)
        self.handlers = handlers_of(handlers)
        self.policy = policy_of(policy, self.guards, self.handlers)
        self._callers = [
            GuardCaller(
                guard, timeout=timeout, attempts=attempts, limit=max_characters, cache=self.cache
            )
            for guard in self.guards
        ]
        self._audit, self._audit_text = audit_of(audit, audit_text)
        self.waiting = Waiting.of(
            store_of(held),
            self.guards,
            self.policy,
            active=bool(self.handlers),
            patience=seconds_or_none("handler_timeout", handler_timeout),
        )

    def __repr__(self) -> str:
        return f"Safeguard(guards={[g.name for g in self.guards]}, policy={self.policy.name!r})"

    def __deepcopy__(self, memo: object) -> Safeguard:
        return self  # it never changes, and its models are shared anyway

    def variant(self, policy: Any = None, *, recorded: bool = True) -> Safeguard:
        """Return one with the same guards, but another policy, or one that records nothing."""
        other = copy(self)
        if policy is not None:
            other.policy = policy_of(policy, self.guards, self.handlers)
        other._audit = self._audit if recorded else None
        return other

    def asking_as(self, name: str, place: str = "", interrupted: Interrupted = None) -> Safeguard:
        """Return the same for one of several who judge with it.

        Args:
            name: What tells its questions to people from those of others.
            place: Where that is done about which it asks, if there are several places.
            interrupted: Takes the interrupt of a handler that asks a person; the decision is then
                `escalate`. If left out, the interrupt is raised.
        """
        other = copy(self)
        other.waiting = self.waiting.named(name, place, interrupted)
        return other

    def require(self, side: Side) -> None:
        """Make sure that one of the guards can judge a side; the others are not asked about it.

        Raises:
            ConfigurationError: None can.
        """
        if any(side in guard.sides for guard in self.guards):
            return
        able = "; ".join(f"{guard.name} judges {', '.join(guard.sides)}" for guard in self.guards)
        raise ConfigurationError(f"no guard judges side={side!r}: {able}; add a guard that does")

    def check(
        self,
        value: object,
        *,
        side: Side = "input",
        config: RunnableConfig | None = None,
        verdicts: Sequence[Verdict] | None = None,
        keep: Any = None,
    ) -> Decision:
        """Decide about one text.

        Args:
            value: A `str`, a message, a list of messages, a `PromptValue`, a dict with messages,
                or a `Conversation`.
            side: Which side is judged: what the user wrote, what the assistant answered (in the
                context of what comes before it), what goes into a tool or comes out of one.
            config: A run's config; the record goes to its callbacks as a custom event.
            verdicts: The guards' verdicts on this text where they are known already, from `draft`.
            keep: What to hold while a person is asked, so that `waiting.recall` finds it
                when an interrupted LangGraph run goes on.

        Raises:
            UnreadableInputError: `value` cannot be read, or does not end with a turn of that side.
            ConfigurationError: `side` is unknown.
        """
        asking = Asking(self.waiting, _readable(value, side), side, config, keep)
        return self._decided(asking, verdicts)

    async def acheck(
        self,
        value: object,
        *,
        side: Side = "input",
        config: RunnableConfig | None = None,
        verdicts: Sequence[Verdict] | None = None,
        keep: Any = None,
    ) -> Decision:
        """Decide about one text without blocking the event loop; see `check`."""
        asking = Asking(self.waiting, _readable(value, side), side, config, keep)
        return await self._adecided(asking, verdicts)

    def draft(self, value: object, *, side: Side = "output") -> Decision:
        """Decide about a growing text, only that; `check` with the `verdicts` then acts on it."""
        conversation = _readable(value, side)
        verdicts = self._judge([conversation], side, growing=True)[0]
        return decide(self.policy, conversation, side, verdicts)[0]

    async def adraft(self, value: object, *, side: Side = "output") -> Decision:
        """Decide about a text that is still growing; see `draft`."""
        conversation = _readable(value, side)
        verdicts = (await self._ajudge([conversation], side, growing=True))[0]
        return decide(self.policy, conversation, side, verdicts)[0]

    def batch(
        self,
        values: Sequence[object],
        *,
        side: Side = "input",
        configs: Sequence[RunnableConfig] | None = None,
        keeps: Sequence[Any] | None = None,
    ) -> list[Decision]:
        """Decide about several texts in one pass of each guard; see `check`."""
        conversations = [_readable(value, side) for value in values]
        verdicts = self._judge(conversations, side)
        asked = self._asking(conversations, side, configs, keeps)
        return [*map(self._decided, asked, verdicts)]

    async def abatch(
        self,
        values: Sequence[object],
        *,
        side: Side = "input",
        configs: Sequence[RunnableConfig] | None = None,
        keeps: Sequence[Any] | None = None,
    ) -> list[Decision]:
        """Decide about several texts in one pass of each guard; see `check`."""
        conversations = [_readable(value, side) for value in values]
        verdicts = await self._ajudge(conversations, side)
        asked = self._asking(conversations, side, configs, keeps)
        return await asyncio.gather(*map(self._adecided, asked, verdicts))

    def recall(
        self, prompt: Conversation, *, side: Side = "output", config: RunnableConfig | None = None
    ) -> Recalled | None:
        """Return the answer to a prompt that a handler holds for review, if the config says so.

        It stands in for calling the model again, and is to be checked as any answer is.

        Args:
            prompt: What was asked.
            side: The side on which the answer was judged.
            config: The run's config; `with_ticket` puts into it which answer is meant.

        Raises:
            SafeguardError: It cannot be had; whoever holds it says why.
        """
        if config is None or not tickets_of(config):
            return None
        return recalled(self.handlers.values(), prompt, side, config)

    async def arecall(
        self, prompt: Conversation, *, side: Side = "output", config: RunnableConfig | None = None
    ) -> Recalled | None:
        """Return an answer that is held, without blocking the event loop; see `recall`."""
        if config is None or not tickets_of(config):
            return None
        return await asyncio.to_thread(self.recall, prompt, side=side, config=config)

    def _flow(
        self, conversation: Conversation, side: Side, verdicts: Sequence[Verdict] | None = None
    ) -> Flow:
        return decision_flow(self.policy, self.handlers, conversation, side, verdicts)

    def _asking(
        self,
        conversations: Sequence[Conversation],
        side: Side,
        configs: Sequence[RunnableConfig] | None,
        keeps: Sequence[Any] | None,
    ) -> list[Asking]:
        each = zip(conversations, configs or repeat(None), keeps or repeat(None), strict=False)
        return [Asking(self.waiting, turns, side, *rest) for turns, *rest in each]

    def _decided(self, asking: Asking, verdicts: Sequence[Verdict] | None) -> Decision:
        flow = self._flow(asking.conversation, asking.side, asking.known() or verdicts)
        decision = drive(flow, lambda step: self._perform(step, asking))
        asking.close(decision)
        return decision

    async def _adecided(self, asking: Asking, verdicts: Sequence[Verdict] | None) -> Decision:
        if asking.lingers:
            verdicts = await asyncio.to_thread(asking.known) or verdicts
        flow = self._flow(asking.conversation, asking.side, verdicts)
        decision = await adrive(flow, lambda step: self._aperform(step, asking))
        if asking.lingers:
            await asyncio.to_thread(asking.close, decision)
        return decision

    def _perform(self, step: Judge | Apply | Record, asking: Asking) -> Any:
        match step:
            case Judge(conversation, side):
                return self._judge([conversation], side)[0]
            case Apply(function, argument):
                return asking.call(function, argument)
            case Record():
                self._write(step)
                config = asking.config
                if config is not None and config.get("callbacks"):
                    # Outside a run there is no one to send an event to.
                    with contextlib.suppress(RuntimeError):
                        dispatch_custom_event(EVENT, _event(step), config=config)

    async def _aperform(self, step: Judge | Apply | Record, asking: Asking) -> Any:
        match step:
            case Judge(conversation, side):
                return (await self._ajudge([conversation], side))[0]
            case Apply(function, argument):
                return await asking.acall(function, argument)
            case Record():
                await asyncio.to_thread(self._write, step)
                config = asking.config
                if config is not None and config.get("callbacks"):
                    with contextlib.suppress(RuntimeError):
                        await adispatch_custom_event(EVENT, _event(step), config=config)

    def _judge(
        self, conversations: Sequence[Conversation], side: Side, *, growing: bool = False
    ) -> list[list[Verdict]]:
        asked = [c.ask(conversations, side, remember=not growing) for c in self._able(side)]
        return [list(verdicts) for verdicts in zip(*asked, strict=True)]

    async def _ajudge(
        self, conversations: Sequence[Conversation], side: Side, *, growing: bool = False
    ) -> list[list[Verdict]]:
        asking = (c.aask(conversations, side, remember=not growing) for c in self._able(side))
        asked = await asyncio.gather(*asking)
        return [list(verdicts) for verdicts in zip(*asked, strict=True)]

    def _able(self, side: Side) -> list[GuardCaller]:
        self.require(side)
        return [caller for caller in self._callers if side in caller.guard.sides]

    def _write(self, step: Record) -> None:
        if self._audit is None:
            return
        text = step.conversation.checked(step.decision.side).text if self._audit_text else None
        try:
            self._audit(audit_record(step.decision, pending=step.pending, text=text))
        except Exception as error:
            # A sink that fails must not decide what users see, nor may it fail unheard.
            logger.error("the audit sink failed: %s", type(error).__name__)


def _event(step: Record) -> dict[str, Any]:
    return audit_record(step.decision, pending=step.pending)


def _readable(value: object, side: Side) -> Conversation:
    conversation = Conversation.of(value, side_of(side))
    conversation.checked(side)
    return conversation
