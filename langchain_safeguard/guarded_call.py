"""One call of a chat model with its checks: before it, after it, or while it streams."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, message_chunk_to_message
from langchain_core.runnables import Runnable, RunnableConfig

from langchain_safeguard.conversation import Conversation
from langchain_safeguard.decision import Decision
from langchain_safeguard.errors import ContentBlockedError
from langchain_safeguard.guarded_stream import OnBlock, aguarded_stream, guarded_stream
from langchain_safeguard.hushed import aquietly, hushed, muted, quiet, quietly
from langchain_safeguard.parallel import InputStoppedError, aboth, agated, both, gated
from langchain_safeguard.plans import adrive, drive
from langchain_safeguard.refusal import (
    recorded,
    refusal_chunk,
    refusal_message,
    rewritten_input,
    with_text,
)
from langchain_safeguard.review.ticket import tickets_of
from langchain_safeguard.safeguard import Safeguard

Messages = Sequence[BaseMessage]

_RUN_IDS = ("lc_run-", "run-")
"""How ids begin that langchain-core makes from a run's id."""


@dataclass(frozen=True, slots=True)
class _Ask:
    """Check the input; the result is the decision, and in parallel mode the answer with it."""

    conversation: Conversation
    messages: Messages


@dataclass(frozen=True, slots=True)
class _Call:
    """Call the model; the result is its answer."""

    messages: Messages


@dataclass(frozen=True, slots=True)
class _Judge:
    """Check the answer; the result is the decision."""

    conversation: Conversation


@dataclass(frozen=True, slots=True)
class _Recall:
    """Look for the answer that was held for review; the result is that, or `None`."""

    conversation: Conversation


_Step = _Ask | _Call | _Judge | _Recall
_Plan = Generator[_Step, Any, AIMessage]


@dataclass(frozen=True, slots=True)
class GuardedCall:
    """How to call a chat model, and what to check.

    Attributes:
        model: The model.
        options: Keyword arguments of its `invoke` and `stream`.
        config: The config for what happens inside the guarded run.
        safeguard: What judges.
        check_input: Whether the input is checked.
        check_output: Whether the answer is checked.
        on_block: Whether a block returns a refusal or raises `ContentBlockedError`.
        parallel: Whether the model works while its input is checked.
        every: After how many new tokens, estimated, a stream is checked again.
    """

    model: Runnable[Any, Any]
    options: Mapping[str, Any]
    config: RunnableConfig
    safeguard: Safeguard
    check_input: bool
    check_output: bool
    on_block: OnBlock
    parallel: bool
    every: int

    def invoke(self, messages: Messages) -> AIMessage:
        """Return the checked answer, or a refusal.

        Raises:
            ContentBlockedError: Something was blocked, and `on_block` is `"raise"`.
        """
        return drive(self._plan(messages), self._perform)

    async def ainvoke(self, messages: Messages) -> AIMessage:
        """Return the checked answer, or a refusal; see `invoke`."""
        return await adrive(self._plan(messages), self._aperform)

    def stream(self, messages: Messages) -> Generator[AIMessageChunk]:
        """Yield the checked answer, or a refusal.

        Raises:
            ContentBlockedError: Something was blocked, and `on_block` is `"raise"`.
        """
        try:
            yield from self._streamed(messages, asked=not self.check_input)
        except InputStoppedError as stopped:
            # Nothing was yielded yet.
            refusal, messages = self._instead(messages, stopped.decision)
            if refusal is not None:
                yield refusal
            else:
                yield from self._streamed(messages, asked=True)

    async def astream(self, messages: Messages) -> AsyncGenerator[AIMessageChunk]:
        """Yield the checked answer, or a refusal; see `stream`."""
        try:
            async with aclosing(self._astreamed(messages, asked=not self.check_input)) as answer:
                async for chunk in answer:
                    yield chunk
        except InputStoppedError as stopped:
            refusal, messages = self._instead(messages, stopped.decision)
            if refusal is not None:
                yield refusal
                return
            async with aclosing(self._astreamed(messages, asked=True)) as answer:
                async for chunk in answer:
                    yield chunk

    def _perform(self, step: _Step) -> Any:
        match step:
            case _Recall(conversation):
                return self.safeguard.recall(conversation, config=self.config)
            case _Ask(conversation, asked) if self._at_once:
                return both(partial(self._check, conversation), partial(self._answer, asked))
            case _Ask(conversation):
                return self._check(conversation), None
            case _Call(asked):
                return self._answer(asked)
            case _Judge(conversation):
                return self.safeguard.check(conversation, side="output", config=self.config)

    async def _aperform(self, step: _Step) -> Any:
        match step:
            case _Recall(conversation):
                return await self.safeguard.arecall(conversation, config=self.config)
            case _Ask(conversation, asked) if self._at_once:
                return await aboth(self._acheck(conversation), self._aanswer(asked))
            case _Ask(conversation):
                return await self._acheck(conversation), None
            case _Call(asked):
                return await self._aanswer(asked)
            case _Judge(conversation):
                return await self.safeguard.acheck(conversation, side="output", config=self.config)

    def _plan(self, messages: Messages) -> _Plan:
        prompt = Conversation.of(messages)
        answer: AIMessage | None = None
        if self.check_input:
            decision, answer = yield _Ask(prompt, messages)
            if decision.blocked:
                return self._refusal(decision, None)
            if not decision.passes:
                messages, answer = rewritten_input(messages, decision), None
                prompt = Conversation.of(messages)
        if answer is None and self.check_output and (recalled := (yield _Recall(prompt))):
            answer = _whole(recalled.answer)
        if answer is None:
            answer = yield _Call(messages)
        if not self.check_output:
            return answer
        decision = yield _Judge(prompt.answered(answer))
        if decision.blocked:
            return self._refusal(decision, answer)
        return recorded(answer, decision) if decision.passes else with_text(answer, decision)

    def _refusal(self, decision: Decision, answer: AIMessage | None) -> AIMessage:
        if self.on_block == "raise":
            raise ContentBlockedError(decision)
        return refusal_message(decision, answer)

    def _instead(
        self, messages: Messages, decision: Decision
    ) -> tuple[AIMessageChunk | None, Messages]:
        """Return the refusal of an input, or what to ask instead of it."""
        if not decision.blocked:
            return None, rewritten_input(messages, decision)
        if self.on_block == "raise":
            raise ContentBlockedError(decision) from None
        return refusal_chunk(decision), messages

    def _check(self, prompt: Conversation) -> Decision:
        return self.safeguard.check(prompt, side="input", config=self.config)

    async def _acheck(self, prompt: Conversation) -> Decision:
        return await self.safeguard.acheck(prompt, side="input", config=self.config)

    def _answer(self, messages: Messages) -> AIMessage:
        config = hushed(self.config)
        with quiet(config):
            return _whole(muted(self.model).invoke(messages, config, **self.options))

    async def _aanswer(self, messages: Messages) -> AIMessage:
        config = hushed(self.config)
        with quiet(config):
            return _whole(await muted(self.model).ainvoke(messages, config, **self.options))

    def _streamed(self, messages: Messages, *, asked: bool) -> Generator[AIMessageChunk]:
        prompt, config = Conversation.of(messages), hushed(self.config)
        if not (asked or self._at_once):
            _stop_unless_passed(self._check(prompt))
        recalled = self.safeguard.recall(prompt, config=self.config) if self.check_output else None
        if recalled is None:
            chunks = quietly(muted(self.model).stream(messages, config, **self.options), config)
        else:
            chunks = _once(recalled.answer)
        if self._at_once and not asked:
            chunks = gated(chunks, partial(self._check, prompt))
        if self.check_output:
            chunks = guarded_stream(chunks, prompt, self.safeguard, **self._window)
        with closing(chunks):
            for chunk in chunks:
                yield as_chunk(_own(chunk))

    async def _astreamed(
        self, messages: Messages, *, asked: bool
    ) -> AsyncGenerator[AIMessageChunk]:
        prompt, config = Conversation.of(messages), hushed(self.config)
        if not (asked or self._at_once):
            _stop_unless_passed(await self._acheck(prompt))
        recalled = None
        if self.check_output:
            recalled = await self.safeguard.arecall(prompt, config=self.config)
        if recalled is None:
            chunks = aquietly(muted(self.model).astream(messages, config, **self.options), config)
        else:
            chunks = _aonce(recalled.answer)
        if self._at_once and not asked:
            chunks = agated(chunks, self._acheck(prompt))
        if self.check_output:
            chunks = aguarded_stream(chunks, prompt, self.safeguard, **self._window)
        async with aclosing(chunks):
            async for chunk in chunks:
                yield as_chunk(_own(chunk))

    @property
    def _at_once(self) -> bool:
        """Tell whether the model may work while its input is checked.

        Not if there is a ticket: what it stands for is looked up before the model is called.
        """
        return self.parallel and not tickets_of(self.config)

    @property
    def _window(self) -> dict[str, Any]:
        return {"config": self.config, "every": self.every, "on_block": self.on_block}


def _stop_unless_passed(decision: Decision) -> None:
    if not decision.passes:
        raise InputStoppedError(decision)


def _own(message: Any) -> AIMessage:
    """Copy a message of the inner model, without the id of the inner run.

    Callers write into what they get, and the original may lie in the inner model's cache. An id
    that a provider gave stays; without one, a message gets the id of the guarded run.
    """
    if not isinstance(message, AIMessage):
        raise TypeError(f"the model answered with a {type(message).__name__}, not an AIMessage")
    id = None if (message.id or "").startswith(_RUN_IDS) else message.id
    return message.model_copy(update={"id": id, "response_metadata": {**message.response_metadata}})


def _whole(message: Any) -> AIMessage:
    """Return the answer as a message, whatever form the inner model gave it."""
    own = _own(message)
    if isinstance(own, AIMessageChunk):
        return cast(AIMessage, message_chunk_to_message(own))
    return own


def _once(answer: Any) -> Generator[Any]:
    yield as_chunk(answer)


async def _aonce(answer: Any) -> AsyncGenerator[Any]:
    yield as_chunk(answer)


def as_chunk(message: Any) -> Any:
    """Return the one chunk of an answer that does not stream; what is no AI message stays."""
    if isinstance(message, AIMessageChunk) or not isinstance(message, AIMessage):
        return message
    chunk = AIMessageChunk(
        content=message.content,
        additional_kwargs=message.additional_kwargs,
        response_metadata=message.response_metadata,
        tool_calls=message.tool_calls,
        invalid_tool_calls=message.invalid_tool_calls,
        id=message.id,
        name=message.name,
        chunk_position="last",
    )
    # Unvalidated: the counts of a message from a cache can be incomplete.
    return chunk.model_copy(update={"usage_metadata": message.usage_metadata})
