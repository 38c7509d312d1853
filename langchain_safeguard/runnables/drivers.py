"""Doing what a flow asks for: for one input or many, sync or async.

Guarded steps run hushed: see `langchain_safeguard.hushed`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

from langchain_core.runnables import RunnableConfig

from langchain_safeguard.errors import SafeguardError
from langchain_safeguard.holding.graph_task import resumed
from langchain_safeguard.hushed import hushed, quiet
from langchain_safeguard.parallel import aboth, both
from langchain_safeguard.plans import adrive, drive
from langchain_safeguard.review.ticket import tickets_of
from langchain_safeguard.runnables.flow import Both, Judge, Plan, Recall, Run, Step, Wait, flow

Options = Mapping[str, Any]


class Driver:
    """Drives one call of guarded steps; it is thrown away afterwards.

    Args:
        plan: What is guarded by what, prepared.
        configs: The config of each input's guarded run, for its children.
        options: Keyword arguments for the guarded steps.
    """

    def __init__(self, plan: Plan, configs: Sequence[RunnableConfig], options: Options) -> None:
        """Store."""
        # What a ticket stands for is looked up before the steps begin.
        held = any(map(tickets_of, configs))
        self._plan = replace(plan, mode="sequential") if held else plan
        self._configs = configs
        self._options = options

    def invoke(self, value: Any) -> Any:
        """Take one input through.

        Raises:
            ContentBlockedError: It, or its answer, is blocked, and there is to be no refusal.
        """
        return _only(drive(flow(self._plan, [value], parallel=self._parallel), self._perform))

    async def ainvoke(self, value: Any) -> Any:
        """Take one input through; see `invoke`."""
        with self._working():
            steps = flow(self._plan, [value], parallel=self._parallel)
            return _only(await adrive(steps, self._aperform))

    def batch(self, values: Sequence[Any]) -> list[Any]:
        """Take many inputs through; an exception stands in the place of what raised it."""
        return drive(flow(self._plan, values), self._perform)

    async def abatch(self, values: Sequence[Any]) -> list[Any]:
        """Take many inputs through; an exception stands in the place of what raised it."""
        with self._working():
            return await adrive(flow(self._plan, values), self._aperform)

    def _perform(self, step: Step) -> Any:
        match step:
            case Recall():
                return self._recall(step)
            case Judge():
                return self._judge(step)
            case Wait(gate, conversation, item):
                return gate.waited(conversation, self._configs[item])
            case Run():
                return self._run(step)
            case Both(judge, run):
                return self._both(judge, run)

    async def _aperform(self, step: Step) -> Any:
        match step:
            case Recall():
                return await self._arecall(step)
            case Judge():
                return await self._ajudge(step)
            case Wait(gate, conversation, item):
                return await gate.awaited(conversation, self._configs[item])
            case Run():
                return await self._arun(step)
            case Both(judge, run):
                return await self._aboth(judge, run)

    def _judge(self, step: Judge) -> dict[int, Any]:
        configs = [self._configs[item] for item in step.conversations]
        keeps = [step.outputs.get(item) for item in step.conversations]
        decisions = step.gate.batch([*step.conversations.values()], configs, keeps)
        return dict(zip(step.conversations, decisions, strict=True))

    async def _ajudge(self, step: Judge) -> dict[int, Any]:
        configs = [self._configs[item] for item in step.conversations]
        keeps = [step.outputs.get(item) for item in step.conversations]
        decisions = await step.gate.abatch([*step.conversations.values()], configs, keeps)
        return dict(zip(step.conversations, decisions, strict=True))

    def _recall(self, step: Recall) -> dict[int, Any]:
        found: dict[int, Any] = {}
        for item, prompt in step.prompts.items():
            if not tickets_of(self._configs[item]):
                continue
            try:
                recalled = step.gate.recall(prompt, self._configs[item])
            except SafeguardError as error:
                found[item] = error
            else:
                found |= {} if recalled is None else {item: recalled.answer}
        return found

    async def _arecall(self, step: Recall) -> dict[int, Any]:
        if not any(map(tickets_of, self._configs)):
            return {}
        await step.gate.asafeguard()
        return await asyncio.to_thread(self._recall, step)

    def _run(self, step: Run) -> dict[int, Any]:
        if not step.values:
            return {}
        options = self._options_of(step)
        with self._inner(step) as configs:
            if len(step.values) == 1 and len(self._configs) == 1:
                try:
                    output = step.steps.invoke(step.values[0], configs[0], **options)
                except Exception as error:
                    output = error
                outputs = [output]
            else:
                outputs = step.steps.batch(
                    [*step.values.values()], configs, return_exceptions=True, **options
                )
        return dict(zip(step.values, outputs, strict=True))

    async def _arun(self, step: Run) -> dict[int, Any]:
        if not step.values:
            return {}
        options = self._options_of(step)
        with self._inner(step) as configs:
            if len(step.values) == 1 and len(self._configs) == 1:
                try:
                    output = await step.steps.ainvoke(step.values[0], configs[0], **options)
                except Exception as error:
                    output = error
                outputs = [output]
            else:
                outputs = await step.steps.abatch(
                    [*step.values.values()], configs, return_exceptions=True, **options
                )
        return dict(zip(step.values, outputs, strict=True))

    def _both(self, judge: Judge, run: Run) -> tuple[dict[int, Any], dict[int, Any]]:
        config, conversation = self._configs[0], judge.conversations[0]
        decision, outputs = both(
            lambda: judge.gate.check(conversation, config), lambda: self._run(run)
        )
        return {0: decision}, outputs or {}

    async def _aboth(self, judge: Judge, run: Run) -> tuple[dict[int, Any], dict[int, Any]]:
        check = judge.gate.acheck(judge.conversations[0], self._configs[0])
        decision, outputs = await aboth(check, self._arun(run))
        return {0: decision}, outputs or {}

    @property
    def _parallel(self) -> bool:
        # The answer may wait from an earlier run.
        return self._plan.mode == "parallel" and not resumed(self._configs[0])

    def _working(self) -> AbstractContextManager[None]:
        """Let an interrupt of the graph around wait for what is done in here."""
        gate = self._plan.exit
        return gate.safeguard.waiting.working(self._configs[0]) if gate else nullcontext()

    @contextmanager
    def _inner(self, step: Run) -> Iterator[list[RunnableConfig]]:
        """Give the configs for steps; hushed, if their output is not checked yet."""
        configs = [self._configs[item] for item in step.values]
        if self._plan.exit is None and step.steps is not self._plan.lead:
            yield configs
            return
        configs = [hushed(config) for config in configs]
        with quiet(configs[0]):
            yield configs

    def _options_of(self, step: Run) -> Options:
        """Like a `RunnableSequence`, hand keyword arguments to the first steps only."""
        first = self._plan.steps if self._plan.lead is None else self._plan.lead
        return self._options if step.steps is first else {}


def _only(results: list[Any]) -> Any:
    [result] = results
    if isinstance(result, Exception):
        raise result
    return result
