"""A sequence whose streams end when nobody wants them any more.

When the stream of a `RunnableSequence` is closed, only its last step hears of it. In sync code a
parser there then reads the rest of the model's answer to complete its trace; in async code the
model is closed some time later, by the garbage collector. Here a close reaches the first step
first, so that a model stops generating when its answer is blocked.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from typing import Any, cast

from langchain_core.runnables import Runnable, RunnableConfig, RunnableSequence
from langchain_core.runnables.config import patch_config

from langchain_safeguard.hushed import aclose, close


class ClosingSequence(RunnableSequence[Any, Any]):
    """A `RunnableSequence` whose streams close from the first step to the last."""

    def _transform(
        self, inputs: Iterator[Any], run_manager: Any, config: RunnableConfig, **kwargs: Any
    ) -> Iterator[Any]:
        joints: list[Iterator[Any]] = []
        for number, step in enumerate(self.steps, start=1):
            child = patch_config(config, callbacks=run_manager.get_child(f"seq:step:{number}"))
            inputs = step.transform(inputs, child, **(kwargs if number == 1 else {}))
            joints.append(inputs)
        try:
            # Not `yield from`, which would close the last step before the first.
            for chunk in inputs:  # noqa: UP028
                yield chunk
        finally:
            for joint in joints:
                close(joint)

    async def _atransform(
        self, inputs: AsyncIterator[Any], run_manager: Any, config: RunnableConfig, **kwargs: Any
    ) -> AsyncIterator[Any]:
        joints: list[AsyncIterator[Any]] = []
        for number, step in enumerate(self.steps, start=1):
            child = patch_config(config, callbacks=run_manager.get_child(f"seq:step:{number}"))
            inputs = step.atransform(inputs, child, **(kwargs if number == 1 else {}))
            joints.append(inputs)
        try:
            async for chunk in inputs:
                yield chunk
        finally:
            for joint in joints:
                await aclose(joint)

    async def atransform(
        self, input: AsyncIterator[Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """Stream the steps."""
        named = patch_config(config, run_name=(config or {}).get("run_name") or self.name)
        work = cast(Any, self._atransform)
        chunks = self._atransform_stream_with_config(input, work, named, **kwargs)
        async with aclosing(cast(Any, chunks)):
            async for chunk in chunks:
                yield chunk

    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """Stream the steps."""

        async def inputs() -> AsyncIterator[Any]:
            yield input

        chunks = self.atransform(inputs(), config, **kwargs)
        async with aclosing(cast(Any, chunks)):
            async for chunk in chunks:
                yield chunk


def joined(steps: Sequence[Runnable[Any, Any]]) -> Runnable[Any, Any] | None:
    """Return steps as one."""
    if len(steps) > 1:
        return cast(Any, ClosingSequence)(*steps)  # type: ignore[no-any-return]
    return steps[0] if steps else None
