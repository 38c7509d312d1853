"""One call of a chat model with its checks: before it, after it, or while it streams."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import aclosing, closing
from dataclasses import dataclass
from functools import partial
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables import Runnable, RunnableConfig

from langchain_safeguard.chat_models.answer_forms import aonce, as_chunk, once, own, whole
from langchain_safeguard.chat_models.steps import (
    Ask,
    Call,
    Judge,
    Messages,
    Plan,
    Recall,
    Step,
    Wait,
)
from langchain_safeguard.conversation import Conversation
from langchain_safeguard.decision import Decision
from langchain_safeguard.errors import ContentBlockedError
from langchain_safeguard.holding.error_words import text_of_error
from langchain_safeguard.holding.graph_task import resumed
from langchain_safeguard.holding.waiting import LOST_MESSAGE, Found
from langchain_safeguard.hushed import aquietly, hushed, muted, quiet, quietly
from langchain_safeguard.parallel import InputStoppedError, aboth, agated, both, gated
from langchain_safeguard.plans import adrive, drive
from langchain_safeguard.policy import Action
from langchain_safeguard.refusal import (
    recorded,
    refusal_chunk,
    refusal_message,
    rewritten_input,
    to_hold,
    with_text,
)
from langchain_safeguard.review.ticket import tickets_of
from langchain_safeguard.safeguard import Safeguard
from langchain_safeguard.streaming.guarded_stream import OnBlock, aguarded_stream, guarded_stream


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

    def _perform(self, step: Step) -> Any:
        match step:
            case Recall(conversation):
                return self.safeguard.recall(conversation, config=self.config)
            case Ask(conversation, asked) if self._at_once:
                return both(partial(self._check, conversation), partial(self._answer, asked))
            case Ask(conversation):
                return self._check(conversation), None
            case Call(asked):
                return self._answer(asked)
            case Wait(prompt):
                return self.safeguard.waiting.recall(
                    prompt.answered(""), side="output", config=self.config
                )
            case Judge(conversation, keep):
                options: Any = {"config": self.config, "keep": keep}
                return self.safeguard.check(conversation, side="output", **options)

    async def _aperform(self, step: Step) -> Any:
        match step:
            case Recall(conversation):
                return await self.safeguard.arecall(conversation, config=self.config)
            case Ask(conversation, asked) if self._at_once:
                return await aboth(self._acheck(conversation), self._aanswer(asked))
            case Ask(conversation):
                return await self._acheck(conversation), None
            case Call(asked):
                return await self._aanswer(asked)
            case Wait(prompt):
                return await self.safeguard.waiting.arecall(
                    prompt.answered(""), side="output", config=self.config
                )
            case Judge(conversation, keep):
                options: Any = {"config": self.config, "keep": keep}
                return await self.safeguard.acheck(conversation, side="output", **options)

    def _plan(self, messages: Messages) -> Plan:
        prompt = Conversation.of(messages)
        answer: AIMessage | Exception | None = None
        if self.check_input:
            decision, answer = yield Ask(prompt, messages)
            if decision.blocked:
                return self._refusal(decision, None)
            if not decision.passes:
                messages, answer = rewritten_input(messages, decision), None
                prompt = Conversation.of(messages)
        if not self.check_output:
            return _raised(answer if answer is not None else (yield Call(messages)))
        if answer is None and (found := (yield Wait(prompt))):
            return (yield from self._found(prompt, found))
        if answer is None and (recalled := (yield Recall(prompt))):
            answer = whole(recalled.answer)
        if answer is None:
            answer = yield Call(messages)
        return (yield from self._judged(prompt, answer))

    def _found(self, prompt: Conversation, found: Found) -> Plan:
        """Decide about an answer that waited for a person."""
        if found.held is None:
            return self._refusal(found.loss(LOST_MESSAGE), None)
        # Whoever gets it may write into it, and the step may begin anew once more.
        value = found.held.value
        if isinstance(value, Exception):
            return (yield from self._failed(prompt, value))
        return (yield from self._judged(prompt, whole(value), value))

    def _judged(
        self,
        prompt: Conversation,
        answer: AIMessage | Exception,
        keep: AIMessage | None = None,
    ) -> Plan:
        if isinstance(answer, Exception):
            return (yield from self._failed(prompt, answer))
        if keep is None:
            keep = to_hold(answer)
        decision = yield Judge(prompt.answered(answer), keep)
        if decision.blocked:
            return self._refusal(decision, answer)
        return recorded(answer, decision) if decision.passes else with_text(answer, decision)

    def _failed(self, prompt: Conversation, failure: Exception) -> Plan:
        """Raise an error of the model if what it says passes: it may quote the answer."""
        if text := text_of_error(failure):
            decision = yield Judge(prompt.answered(AIMessage(text)), failure)
            if decision.action is Action.REWRITE:
                # There is no answer whose text could be another.
                raise ContentBlockedError(decision)
            if not decision.passes:
                return self._refusal(decision, None)
        raise failure

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

    def _answer(self, messages: Messages) -> AIMessage | Exception:
        config = hushed(self.config)
        with quiet(config):
            try:
                return whole(muted(self.model).invoke(messages, config, **self.options))
            except Exception as error:
                return error

    async def _aanswer(self, messages: Messages) -> AIMessage | Exception:
        config = hushed(self.config)
        with quiet(config):
            try:
                return whole(await muted(self.model).ainvoke(messages, config, **self.options))
            except Exception as error:
                return error

    def _streamed(self, messages: Messages, *, asked: bool) -> Generator[AIMessageChunk]:
        prompt, config = Conversation.of(messages), hushed(self.config)
        if not (asked or self._at_once):
            _stop_unless_passed(self._check(prompt))
        found = self._perform(Wait(prompt)) if self.check_output else None
        if found is not None:
            yield as_chunk(drive(self._found(prompt, found), self._perform))
            return
        recalled = self._perform(Recall(prompt)) if self.check_output else None
        if recalled is None:
            chunks = quietly(muted(self.model).stream(messages, config, **self.options), config)
        else:
            chunks = once(recalled.answer)
        if self._at_once and not asked:
            chunks = gated(chunks, partial(self._check, prompt))
        if self.check_output:
            chunks = guarded_stream(chunks, prompt, self.safeguard, **self._window)
        try:
            with closing(chunks):
                for chunk in chunks:
                    yield as_chunk(own(chunk))
            return
        except Exception as error:
            if isinstance(error, InputStoppedError) or not self.check_output:
                raise
            failure = error
        # Outside of the handler, so that the error is no context of the one raised instead.
        yield as_chunk(drive(self._failed(prompt, failure), self._perform))

    async def _astreamed(
        self, messages: Messages, *, asked: bool
    ) -> AsyncGenerator[AIMessageChunk]:
        prompt, config = Conversation.of(messages), hushed(self.config)
        if not (asked or self._at_once):
            _stop_unless_passed(await self._acheck(prompt))
        found = await self._aperform(Wait(prompt)) if self.check_output else None
        if found is not None:
            yield as_chunk(await adrive(self._found(prompt, found), self._aperform))
            return
        recalled = await self._aperform(Recall(prompt)) if self.check_output else None
        if recalled is None:
            chunks = aquietly(muted(self.model).astream(messages, config, **self.options), config)
        else:
            chunks = aonce(recalled.answer)
        if self._at_once and not asked:
            chunks = agated(chunks, self._acheck(prompt))
        if self.check_output:
            chunks = aguarded_stream(chunks, prompt, self.safeguard, **self._window)
        try:
            async with aclosing(chunks):
                async for chunk in chunks:
                    yield as_chunk(own(chunk))
            return
        except Exception as error:
            if isinstance(error, InputStoppedError) or not self.check_output:
                raise
            failure = error
        yield as_chunk(await adrive(self._failed(prompt, failure), self._aperform))

    @property
    def _at_once(self) -> bool:
        """Tell whether the model may work while its input is checked.

        Not if its answer may be there already: from before an interrupt, or under a ticket.
        """
        return self.parallel and not (tickets_of(self.config) or resumed(self.config))

    @property
    def _window(self) -> dict[str, Any]:
        return {"config": self.config, "every": self.every, "on_block": self.on_block}


def _raised(answer: AIMessage | Exception) -> AIMessage:
    if isinstance(answer, Exception):
        raise answer
    return answer


def _stop_unless_passed(decision: Decision) -> None:
    if not decision.passes:
        raise InputStoppedError(decision)
