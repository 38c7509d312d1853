"""`GuardedSteps`: the Runnable that guarded chains are made of."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import aclosing
from typing import Any, cast

from langchain_core.runnables import (
    Runnable,
    RunnableConfig,
    RunnableLambda,
    RunnableSequence,
    RunnableSerializable,
)
from langchain_core.runnables.graph import Graph
from langchain_core.runnables.utils import ConfigurableFieldSpec, get_unique_config_specs
from pydantic import ConfigDict, PrivateAttr

from langchain_safeguard.runnables.delegation import prepared
from langchain_safeguard.runnables.drivers import Driver
from langchain_safeguard.runnables.flow import Mode, Plan
from langchain_safeguard.runnables.gate import Gate
from langchain_safeguard.runnables.streams import Stream


class GuardedSteps(RunnableSerializable[Any, Any]):
    """Steps whose input, output or both are checked; what guarded chains are made of.

    Attributes:
        entry: What judges the input; `None` to let everything in.
        lead: Steps to run before `steps` that belong to them, where there is no `entry`: their
            output is the prompt that the answer is judged with.
        steps: What is guarded; `None` to return the input when it has passed.
        exit: What judges the output; `None` to let everything out.
        mode: Whether `steps` may start before the verdict on the input.
        check_every: After how many new tokens of a stream the answer is checked again.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    entry: Gate | None = None
    lead: Runnable[Any, Any] | None = None
    steps: Runnable[Any, Any] | None = None
    exit: Gate | None = None
    mode: Mode = "sequential"
    check_every: int = 32
    _plans: dict[bool, tuple[Any, Any, Plan]] = PrivateAttr(default_factory=dict)

    def __getstate__(self) -> dict[Any, Any]:
        """Pickle without the plans, which hold what was loaded."""
        state = super().__getstate__()
        return {**state, "__pydantic_private__": {"_plans": {}}}

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Check, call the steps, check their answer."""
        return self._call_with_config(cast(Any, self._invoke), input, config, **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Check, call the steps, check their answer."""
        return await self._acall_with_config(cast(Any, self._ainvoke), input, config, **kwargs)

    def batch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """Check all inputs in one pass of the guard, and so all answers; see `invoke`."""
        return self._batch_with_config(
            cast(Any, self._batch), inputs, config, return_exceptions=return_exceptions, **kwargs
        )

    async def abatch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """Check all inputs in one pass of the guard, and so all answers; see `invoke`."""
        return await self._abatch_with_config(
            cast(Any, self._abatch), inputs, config, return_exceptions=return_exceptions, **kwargs
        )

    def stream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        """Check, call the steps, and check their answer while it grows."""
        yield from self.transform(iter([input]), config, **kwargs)

    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """Check, call the steps, and check their answer while it grows."""

        async def inputs() -> AsyncIterator[Any]:
            yield input

        chunks = self.atransform(inputs(), config, **kwargs)
        async with aclosing(cast(Any, chunks)):
            async for chunk in chunks:
                yield chunk

    def transform(
        self, input: Iterator[Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        """Stream once the whole input is there, since only a whole input can be judged."""
        yield from self._transform_stream_with_config(
            input, cast(Any, self._stream), config, **kwargs
        )

    async def atransform(
        self, input: AsyncIterator[Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """Stream once the whole input is there, since only a whole input can be judged."""
        chunks = self._atransform_stream_with_config(
            input, cast(Any, self._astream), config, **kwargs
        )
        async with aclosing(cast(Any, chunks)):
            async for chunk in chunks:
                yield chunk

    def _invoke(self, value: Any, config: RunnableConfig, **kwargs: Any) -> Any:
        return Driver(self._plan(alone=True), [config], kwargs).invoke(value)

    async def _ainvoke(self, value: Any, config: RunnableConfig, **kwargs: Any) -> Any:
        return await Driver(await self._aplan(alone=True), [config], kwargs).ainvoke(value)

    def _batch(self, values: list[Any], config: list[RunnableConfig], **kwargs: Any) -> list[Any]:
        return Driver(self._plan(alone=False), config, kwargs).batch(values)

    async def _abatch(
        self, values: list[Any], config: list[RunnableConfig], **kwargs: Any
    ) -> list[Any]:
        return await Driver(await self._aplan(alone=False), config, kwargs).abatch(values)

    def _stream(
        self, inputs: Iterator[Any], config: RunnableConfig, **kwargs: Any
    ) -> Generator[Any]:
        return Stream(self._plan(alone=True), config, kwargs).run(inputs)

    async def _astream(
        self, inputs: AsyncIterator[Any], config: RunnableConfig, **kwargs: Any
    ) -> AsyncGenerator[Any]:
        stream = Stream(await self._aplan(alone=True), config, kwargs)
        async with aclosing(stream.arun(inputs)) as chunks:
            async for chunk in chunks:
                yield chunk

    def _plan(self, *, alone: bool) -> Plan:
        """Return what a run needs to know; it is made once, and shared by all runs."""
        made = self._plans.get(alone)
        # A copy with other steps begins with the plans of the original.
        if made is None or made[0] is not self.lead or made[1] is not self.steps:
            plan = Plan(self.entry, self.lead, self.steps, self.exit, self.mode, self.check_every)
            made = self.lead, self.steps, prepared(plan, alone=alone)
            self._plans = {**self._plans, alone: made}
        return made[2]

    async def _aplan(self, *, alone: bool) -> Plan:
        """Return what a run needs to know; loading the guard does not block the event loop."""
        if self.exit is not None:
            await self.exit.asafeguard()
        return self._plan(alone=alone)

    @property
    def inner(self) -> list[Runnable[Any, Any]]:
        """Return the steps that are guarded."""
        return [steps for steps in (self.lead, self.steps) if steps is not None]

    @property
    def InputType(self) -> Any:
        """Return the type of input that the first of the steps takes."""
        return self.inner[0].InputType if self.inner else Any

    @property
    def OutputType(self) -> Any:
        """Return the type of output that the last of the steps gives."""
        return self.inner[-1].OutputType if self.inner else Any

    def get_input_schema(self, config: RunnableConfig | None = None) -> Any:
        """Return the schema of what the first of the steps takes."""
        if not self.inner:
            return super().get_input_schema(config)
        return self.inner[0].get_input_schema(config)

    def get_output_schema(self, config: RunnableConfig | None = None) -> Any:
        """Return the schema of what the last of the steps gives."""
        if not self.inner:
            return super().get_output_schema(config)
        return self.inner[-1].get_output_schema(config)

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """Return what can be configured in the steps."""
        specs = [spec for steps in self.inner for spec in steps.config_specs]
        return [*get_unique_config_specs(specs)]

    def get_graph(self, config: RunnableConfig | None = None) -> Graph:
        """Draw the steps and their guards."""
        drawn = [
            *([_drawn("InputGuard")] if self.entry else []),
            *self.inner,
            *([_drawn("OutputGuard")] if self.exit else []),
        ]
        return (RunnableSequence(*drawn) if len(drawn) > 1 else drawn[0]).get_graph(config)


def _drawn(name: str) -> Runnable[Any, Any]:
    return RunnableLambda(lambda value: value, name=name)
