"""Streams of guarded steps: nothing comes out before the input, and then the answer, has passed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import aclosing, closing
from dataclasses import replace
from functools import partial
from typing import Any

from langchain_core.messages import AIMessageChunk
from langchain_core.runnables import RunnableConfig

from langchain_safeguard.chat_models.answer_forms import as_chunk
from langchain_safeguard.decision import Decision
from langchain_safeguard.holding.error_words import text_of_error
from langchain_safeguard.holding.graph_task import resumed
from langchain_safeguard.hushed import aclose, aquietly, close, hushed, quiet, quietly
from langchain_safeguard.parallel import InputStoppedError, agated, gated
from langchain_safeguard.policy import Action
from langchain_safeguard.review.ticket import tickets_of
from langchain_safeguard.runnables.drivers import Driver, Options
from langchain_safeguard.runnables.flow import Passage, Plan
from langchain_safeguard.runnables.gate import Gate
from langchain_safeguard.streaming.guarded_stream import aguarded_stream, guarded_stream, joined

_END = object()


class Stream:
    """One stream of guarded steps; it is thrown away afterwards.

    Args:
        plan: What is guarded by what, prepared.
        config: The config of the guarded run, for its children.
        options: Keyword arguments for the guarded steps.
    """

    def __init__(self, plan: Plan, config: RunnableConfig, options: Options) -> None:
        """Store."""
        # What a ticket stands for is looked up before the steps begin.
        self._plan = replace(plan, mode="sequential") if tickets_of(config) else plan
        self._config = config
        self._options = options

    def run(self, inputs: Iterator[Any]) -> Generator[Any]:
        """Take an input through that comes in chunks; only the whole of it can be judged."""
        chunks = [*inputs]
        if not chunks:
            return
        value = joined(chunks)
        if self._plan.steps is None:
            yield Driver(self._plan, [self._config], {}).invoke(value)
            return
        if self._plan.exit is not None and resumed(self._config):
            # The answer may wait from an earlier run.
            yield as_chunk(Driver(self._plan, [self._config], self._options).invoke(value))
            return
        passage, gate = self._plan.arrive(value), self._plan.entry
        try:
            if gate is not None and self._plan.mode != "parallel":
                _stop_unless_passed(gate.check(passage.conversation, self._config))
            with closing(self._answer(self._led(passage), gate)) as answer:
                yield from answer
        except InputStoppedError as stopped:
            # Nothing was yielded yet.
            if stopped.decision.action is not Action.REWRITE:
                yield self._plan.refusal(stopped.decision, chunk=True)
                return
            with closing(self._answer(passage.after(stopped.decision), None)) as answer:
                yield from answer
            return
        except Exception as error:
            failure = error
        else:
            return
        # Outside of the handler, so that the error is no context of the one raised instead.
        outcome: Any = failure
        if (gate := self._plan.exit) and (text := text_of_error(failure)):
            decision = gate.check(self._plan.answered(passage, text), self._config)
            outcome = self._plan.settled_error(decision, failure, chunk=True)
        if isinstance(outcome, Exception):
            raise outcome
        yield outcome

    async def arun(self, inputs: AsyncIterator[Any]) -> AsyncGenerator[Any]:
        """Take an input through that comes in chunks; only the whole of it can be judged."""
        chunks = [chunk async for chunk in inputs]
        if not chunks:
            return
        value = joined(chunks)
        if self._plan.steps is None:
            yield await Driver(self._plan, [self._config], {}).ainvoke(value)
            return
        if self._plan.exit is not None and resumed(self._config):
            # The answer may wait from an earlier run.
            yield as_chunk(await Driver(self._plan, [self._config], self._options).ainvoke(value))
            return
        passage, gate = self._plan.arrive(value), self._plan.entry
        try:
            if gate is not None and self._plan.mode != "parallel":
                _stop_unless_passed(await gate.acheck(passage.conversation, self._config))
            async with aclosing(self._aanswer(await self._aled(passage), gate)) as answer:
                async for chunk in answer:
                    yield chunk
        except InputStoppedError as stopped:
            if stopped.decision.action is not Action.REWRITE:
                yield self._plan.refusal(stopped.decision, chunk=True)
                return
            async with aclosing(self._aanswer(passage.after(stopped.decision), None)) as answer:
                async for chunk in answer:
                    yield chunk
            return
        except Exception as error:
            failure = error
        else:
            return
        outcome: Any = failure
        if (gate := self._plan.exit) and (text := text_of_error(failure)):
            decision = await gate.acheck(self._plan.answered(passage, text), self._config)
            outcome = self._plan.settled_error(decision, failure, chunk=True)
        if isinstance(outcome, Exception):
            raise outcome
        yield outcome

    def _led(self, passage: Passage) -> Passage:
        if self._plan.lead is None:
            return passage
        quieter = hushed(self._config)
        with quiet(quieter):
            value = self._plan.lead.invoke(passage.value, quieter, **self._options)
        return self._plan.arrive(value)

    async def _aled(self, passage: Passage) -> Passage:
        if self._plan.lead is None:
            return passage
        quieter = hushed(self._config)
        with quiet(quieter):
            value = await self._plan.lead.ainvoke(passage.value, quieter, **self._options)
        return self._plan.arrive(value)

    def _answer(self, passage: Passage, entry: Gate | None) -> Generator[Any]:
        """Call the steps and let out what passes of their answer; `entry` may still be judging."""
        gate = self._plan.exit
        chunks = self._chunks(passage)
        if entry is not None and self._plan.mode == "parallel":
            chunks = gated(chunks, partial(entry.check, passage.conversation, self._config))
        try:
            if gate is None:
                yield from chunks
                return
            first = next(chunks, _END)
            if isinstance(first, str | AIMessageChunk):
                yield from guarded_stream(
                    _again(first, chunks),
                    passage.conversation,
                    gate.safeguard,
                    config=self._config,
                    every=self._plan.check_every,
                    on_block=gate.on_block,
                    refuse=gate.refused,
                )
            elif first is not _END:
                whole = joined([first, *chunks])
                conversation = self._plan.answered(passage, whole)
                yield gate.settled(gate.check(conversation, self._config), whole)
        finally:
            close(chunks)

    async def _aanswer(self, passage: Passage, entry: Gate | None) -> AsyncGenerator[Any]:
        """Call the steps and let out what passes of their answer; `entry` may still be judging."""
        gate = self._plan.exit
        chunks = await self._achunks(passage)
        if entry is not None and self._plan.mode == "parallel":
            chunks = agated(chunks, entry.acheck(passage.conversation, self._config))
        try:
            if gate is None:
                async for chunk in chunks:
                    yield chunk
                return
            first = await anext(chunks, _END)
            if isinstance(first, str | AIMessageChunk):
                checked = aguarded_stream(
                    _aagain(first, chunks),
                    passage.conversation,
                    await gate.asafeguard(),
                    config=self._config,
                    every=self._plan.check_every,
                    on_block=gate.on_block,
                    refuse=gate.refused,
                )
                async with aclosing(checked):
                    async for chunk in checked:
                        yield chunk
            elif first is not _END:
                whole = joined([first, *[chunk async for chunk in chunks]])
                conversation = self._plan.answered(passage, whole)
                yield gate.settled(await gate.acheck(conversation, self._config), whole)
        finally:
            await aclose(chunks)

    def _chunks(self, passage: Passage) -> Iterator[Any]:
        """Call the steps; hushed, if what they say is not checked yet."""
        assert self._plan.steps is not None
        options = {} if self._plan.lead is not None else self._options
        if self._plan.exit is None:
            return self._plan.steps.stream(passage.value, self._config, **options)
        if recalled := self._plan.exit.recall(passage.conversation, self._config):
            return iter([as_chunk(recalled.answer)])
        config = hushed(self._config)
        return quietly(self._plan.steps.stream(passage.value, config, **options), config)

    async def _achunks(self, passage: Passage) -> AsyncIterator[Any]:
        """Call the steps; hushed, if what they say is not checked yet."""
        assert self._plan.steps is not None
        options = {} if self._plan.lead is not None else self._options
        if self._plan.exit is None:
            return self._plan.steps.astream(passage.value, self._config, **options)
        if recalled := await self._plan.exit.arecall(passage.conversation, self._config):
            return _only(as_chunk(recalled.answer))
        config = hushed(self._config)
        return aquietly(self._plan.steps.astream(passage.value, config, **options), config)


def _stop_unless_passed(decision: Decision) -> None:
    if not decision.passes:
        raise InputStoppedError(decision)


async def _only(chunk: Any) -> AsyncGenerator[Any]:
    yield chunk


def _again(first: Any, rest: Iterator[Any]) -> Generator[Any]:
    try:
        yield first
        yield from rest
    finally:
        close(rest)


async def _aagain(first: Any, rest: AsyncIterator[Any]) -> AsyncGenerator[Any]:
    try:
        yield first
        async for chunk in rest:
            yield chunk
    finally:
        await aclose(rest)
