"""What an `InputGuard` and an `OutputGuard` have in common: when they judge, and what they refuse.

A gate is built when a chain is written and shared by all of its runs. Building it is quick: names
and policies are checked at once, and the guard model is loaded when the first text is judged.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from langchain_core.documents import Document
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import RunnableConfig

from langchain_safeguard.conversation import Conversation
from langchain_safeguard.decision import Decision
from langchain_safeguard.either import check_either
from langchain_safeguard.errors import ConfigurationError, ContentBlockedError
from langchain_safeguard.guards import Guard
from langchain_safeguard.holding.waiting import Found
from langchain_safeguard.loading import check_name, judges
from langchain_safeguard.policy import Action, Policy
from langchain_safeguard.refusal import recorded, refusal_message, refused, with_text
from langchain_safeguard.review.ticket import Recalled
from langchain_safeguard.safeguard import Safeguard
from langchain_safeguard.taxonomy import Side

OnBlock = Literal["refuse", "raise"]
Refusal = Callable[[Decision], Any]
Kind = Literal["message", "text"]
GuardLike = str | Path | Guard | Sequence[str | Path | Guard]
PolicyLike = Policy | Mapping[str, Any] | str | Path


_VALUES = (BaseMessage, PromptValue, Document, Mapping)


class Gate:
    """Judges one side of a chain and makes the refusals.

    Args:
        side: The side that is judged.
        guard: What judges; the embedded guard if left out.
        policy: What is done about it; the default policy if left out.
        safeguard: Both of these and more, instead of them.
        on_block: Whether a block gives a refusal or raises.
        refusal: Makes the refusal from the decision, for steps that return something else than a
            message or text.

    Raises:
        ConfigurationError: A value is wrong; the message names it and what is allowed.
    """

    def __init__(
        self,
        side: Side,
        guard: GuardLike | None,
        policy: PolicyLike | None,
        safeguard: Safeguard | None,
        on_block: OnBlock,
        refusal: Refusal | None,
    ) -> None:
        """Check the values; nothing is loaded yet, unless a loaded guard is given."""
        if on_block not in ("refuse", "raise"):
            raise ConfigurationError.unknown("on_block", on_block, ("refuse", "raise"))
        if refusal is not None and not callable(refusal):
            raise ConfigurationError(f"refusal={refusal!r}; allowed: a function from a Decision")
        check_either(safeguard, guard, policy)
        self.side = side
        self.on_block = on_block
        self.refusal = refusal
        self._guard = guard
        self._policy = None if policy is None else Policy.of(policy)
        self._lock = threading.Lock()
        self._given = safeguard
        self._safeguard = safeguard
        if safeguard is None and _is_loaded(guard, side):
            # Nothing to load, so that a policy which does not fit the guard fails here and now.
            self._safeguard = Safeguard(guard, self._policy)
        if self._safeguard is not None:
            self._safeguard.require(side)

    def __deepcopy__(self, memo: object) -> Gate:
        """Return the gate itself: it never changes, and its guard model is shared anyway."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what it was made of; whoever gets it loads the guard model anew."""
        made_of = self._guard, self._policy, self._given
        return Gate, (self.side, *made_of, self.on_block, self.refusal)

    def __repr__(self) -> str:
        given = {"guard": self._guard, "policy": self._policy, "safeguard": self._given}
        if self.on_block != "refuse":
            given["on_block"] = self.on_block
        told = (f"{name}={value!r}" for name, value in given.items() if value is not None)
        return f"{self.side.capitalize()}Guard({', '.join(told)})"

    @property
    def safeguard(self) -> Safeguard:
        """Return the one decision path; the guard model is loaded on first use."""
        with self._lock:
            safeguard = self._safeguard or Safeguard(self._guard, self._policy)
            safeguard.require(self.side)
            self._safeguard = safeguard
            return safeguard

    async def asafeguard(self) -> Safeguard:
        """Return the one decision path; loading the guard model does not block the event loop."""
        if self._safeguard is not None:
            return self._safeguard
        return await asyncio.to_thread(lambda: self.safeguard)

    def recall(self, prompt: Conversation, config: RunnableConfig) -> Recalled | None:
        """Return the answer to a prompt that is held for review, if the config says so."""
        return self.safeguard.recall(prompt, side=self.side, config=config)

    async def arecall(self, prompt: Conversation, config: RunnableConfig) -> Recalled | None:
        """Return the answer to a prompt that is held for review, if the config says so."""
        safeguard = await self.asafeguard()
        return await safeguard.arecall(prompt, side=self.side, config=config)

    def check(self, conversation: Conversation, config: RunnableConfig) -> Decision:
        """Decide about the end of a conversation."""
        return self.safeguard.check(conversation, side=self.side, config=config)

    async def acheck(self, conversation: Conversation, config: RunnableConfig) -> Decision:
        """Decide about the end of a conversation."""
        safeguard = await self.asafeguard()
        return await safeguard.acheck(conversation, side=self.side, config=config)

    def batch(
        self,
        conversations: Sequence[Conversation],
        configs: Sequence[RunnableConfig],
        keeps: Sequence[Any] | None = None,
    ) -> list[Decision]:
        """Decide about the ends of several conversations in one pass of the guard."""
        options: Any = {"side": self.side, "configs": configs, "keeps": keeps}
        return self.safeguard.batch(conversations, **options)

    async def abatch(
        self,
        conversations: Sequence[Conversation],
        configs: Sequence[RunnableConfig],
        keeps: Sequence[Any] | None = None,
    ) -> list[Decision]:
        """Decide about the ends of several conversations in one pass of the guard."""
        safeguard = await self.asafeguard()
        options: Any = {"side": self.side, "configs": configs, "keeps": keeps}
        return await safeguard.abatch(conversations, **options)

    def waited(self, conversation: Conversation, config: RunnableConfig) -> Found | None:
        """Find an answer that waited while a run was interrupted."""
        return self.safeguard.waiting.recall(conversation, side=self.side, config=config)

    async def awaited(self, conversation: Conversation, config: RunnableConfig) -> Found | None:
        """Find an answer that waited while a run was interrupted."""
        safeguard = await self.asafeguard()
        return await safeguard.waiting.arecall(conversation, side=self.side, config=config)

    def refuse(
        self,
        decision: Decision,
        kind: Kind | None,
        *,
        chunk: bool = False,
        fallback: Refusal | None = None,
    ) -> Any:
        """Make the refusal for a run whose steps were not called.

        Args:
            decision: What was decided.
            kind: What the steps would have returned; `None` if that is neither message nor text.
            chunk: Whether it is for a stream.
            fallback: Makes the refusal where the gate has no `refusal` of its own.

        Raises:
            ContentBlockedError: There is to be no refusal, or none can be made.
        """
        refusal = self.refusal or fallback
        if self.on_block == "raise" or (kind is None and refusal is None):
            raise ContentBlockedError(decision)
        if refusal is None and kind == "text":
            return decision.text
        value = refusal_message(decision) if refusal is None else refusal(decision)
        return as_chunk(value) if chunk else value

    def refused(self, decision: Decision, answer: Any) -> Any:
        """Make the refusal that takes the place of an answer.

        Raises:
            ContentBlockedError: There is to be no refusal, or none can be made.
        """
        if self.on_block == "raise":
            raise ContentBlockedError(decision)
        if self.refusal is None:
            return refused(decision, answer)
        value = self.refusal(decision)
        return as_chunk(value) if isinstance(answer, AIMessageChunk) else value

    def settled(self, decision: Decision, answer: Any) -> Any:
        """Return what becomes of an answer: it passes, is rewritten, or is refused.

        Raises:
            ContentBlockedError: As in `refused`; also for a structured answer that the policy wants
                rewritten, since nobody can say where in it the new text belongs.
        """
        if decision.passes:
            return recorded(answer, decision) if isinstance(answer, BaseMessage) else answer
        if decision.action is Action.REWRITE:
            if isinstance(answer, str):
                return decision.text
            if isinstance(answer, BaseMessage):
                return with_text(answer, decision)
        return self.refused(decision, answer)


def as_chunk(value: object) -> object:
    """Return what a stream carries in place of a value: messages become chunks."""
    if not isinstance(value, AIMessage) or isinstance(value, AIMessageChunk):
        return value
    fields = {name: getattr(value, name) for name in type(value).model_fields if name != "type"}
    return AIMessageChunk(**fields, chunk_position="last")


def _check_is_no_value(guard: object, side: Side) -> None:
    """Make sure that nobody wrote `prompt | InputGuard`: LangChain calls that with each value.

    Raises:
        ConfigurationError: Somebody did. The value, which nobody has checked, is not quoted.
    """
    # No name of a folder or a file is longer.
    name = isinstance(guard, str) and max(map(len, guard.split("/"))) <= 255
    spaced = name and len(str(guard).split()) > 1 and not Path(str(guard)).is_dir()
    if isinstance(guard, _VALUES) or (isinstance(guard, str) and (spaced or not name)):
        wanted = f"{side.capitalize()}Guard()"
        raise ConfigurationError(
            f"guard: a {type(guard).__name__} that is no name of a guard. If it comes out of a "
            f"chain: write {wanted} there, with parentheses"
        )


def _is_loaded(guard: GuardLike | None, side: Side) -> bool:
    """Check the names of guards, and tell whether none of them needs loading.

    Raises:
        ConfigurationError: Nothing is known by one of the names, or none judges that side.
    """
    if guard is None:
        return False
    several = isinstance(guard, Sequence) and not isinstance(guard, str)
    guards: Sequence[Any] = guard if several else [guard]  # type: ignore[assignment]
    if not guards:
        raise ConfigurationError("guard=[]; name at least one")
    for each in guards:
        _check_is_no_value(each, side)
        check_name(each)
    if not any(judges(each, side) for each in guards):
        raise ConfigurationError(f"guard={guard!r} judges other sides than {side!r}")
    return all(isinstance(each, Guard) for each in guards)
