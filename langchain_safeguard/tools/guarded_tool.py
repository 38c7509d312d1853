"""Guarded tools: what a model asks of them is checked, and what they bring back."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any, cast

from langchain_core.callbacks import AsyncCallbackManagerForToolRun, CallbackManagerForToolRun
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import patch_config
from langchain_core.tools import BaseTool, Tool, ToolException
from langchain_core.tools import tool as tool_from
from pydantic import Field

from langchain_safeguard.conversation import Turn
from langchain_safeguard.either import check_either
from langchain_safeguard.errors import ConfigurationError
from langchain_safeguard.guards import Guard
from langchain_safeguard.holding.graph_task import is_control_flow
from langchain_safeguard.holding.held import Outcome
from langchain_safeguard.hushed import attached, hushed, muted, quiet
from langchain_safeguard.policy import Policy
from langchain_safeguard.safeguard import Safeguard
from langchain_safeguard.tools.gate import (
    Call,
    OnBlock,
    Replacement,
    ToolGate,
)
from langchain_safeguard.tools.steps import acarry_out, carry_out

_ONE_TEXT: dict[str, Any] = {
    "type": "object",
    "properties": {"__arg1": {"title": "__arg1", "type": "string"}},
    "required": ["__arg1"],
}
"""How models are told of a tool that takes one text without a name."""


class GuardedTool(BaseTool):
    """A tool around another one, whose arguments and results are checked.

    It looks to models, agents and LangGraph as the inner tool does. The inner tool runs hushed:
    only tracers such as LangSmith's hear it. What it streams by itself (custom data, partial
    output) is heard by nobody, since nobody could judge it. See `guard_tool`.

    Attributes:
        tool: The inner tool.
        gate: What checks.
        context: The turns that led to the call, where known.
    """

    tool: BaseTool
    gate: Any = Field(exclude=True, repr=False)
    context: tuple[Turn, ...] = Field(default=(), exclude=True, repr=False)

    @classmethod
    def around(cls, tool: BaseTool, gate: ToolGate, context: Sequence[Turn] = ()) -> GuardedTool:
        """Make one that describes itself as the inner tool does."""
        schema: Any = tool.args_schema
        if schema is None and isinstance(tool, Tool):
            schema = _ONE_TEXT
        inner = muted(tool)
        return cls(
            name=tool.name,
            description=tool.description,
            args_schema=schema,
            return_direct=tool.return_direct,
            response_format=tool.response_format,
            verbose=tool.verbose,
            callbacks=attached(tool) or None,
            tags=tool.tags,
            metadata=tool.metadata,
            extras=getattr(tool, "extras", None),
            # Verbose tools print what they return.
            tool=inner.model_copy(update={"verbose": False}) if inner.verbose else inner,
            gate=gate,
            context=tuple(context),
        )

    @property
    def func(self) -> Callable[..., Any] | None:
        """Return the inner tool's function, guarded: agents look here for what they inject."""
        func = getattr(self.tool, "func", None)
        if func is None:
            return None

        @functools.wraps(func)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            return self.invoke(_only(args, kwargs))

        return guarded

    @property
    def coroutine(self) -> Callable[..., Any] | None:
        """Return the inner tool's coroutine function, guarded."""
        coroutine = getattr(self.tool, "coroutine", None)
        if coroutine is None:
            return None

        @functools.wraps(coroutine)
        async def guarded(*args: Any, **kwargs: Any) -> Any:
            return await self.ainvoke(_only(args, kwargs))

        return guarded

    @property
    def args(self) -> dict[str, Any]:
        """Return the inner tool's arguments."""
        return self.tool.args

    @property
    def tool_call_schema(self) -> Any:
        """Return what models are told of the arguments."""
        return _ONE_TEXT if self.args_schema is _ONE_TEXT else self.tool.tool_call_schema

    @functools.cached_property
    def _injected_args_keys(self) -> frozenset[str]:
        return self.tool._injected_args_keys

    def get_input_schema(self, config: RunnableConfig | None = None) -> Any:
        """Return the inner tool's schema."""
        return self.tool.get_input_schema(config)

    def _to_args_and_kwargs(
        self, tool_input: str | dict[str, Any], tool_call_id: str | None
    ) -> tuple[tuple[str, ...], dict[str, Any]]:
        """Leave it to the inner tool to validate its arguments."""
        shown = tool_input
        if isinstance(tool_input, dict):
            shown = self._filter_injected_args(tool_input)
        injected = set(tool_input) - set(shown) if isinstance(tool_input, dict) else ()
        call = Call(
            name=self.name,
            description=self.description,
            arguments=tool_input,
            injected=frozenset(injected),
            id=tool_call_id,
            context=self.context,
        )
        return (), {"call": call}

    def _run(
        self,
        call: Call,
        config: RunnableConfig,
        run_manager: CallbackManagerForToolRun | None = None,
    ) -> Any:
        config = patch_config(config, callbacks=run_manager.get_child()) if run_manager else config
        with self.gate.safeguard.waiting.working(config):
            return self._called(call, config)

    def _called(self, call: Call, config: RunnableConfig) -> Any:
        gate = self.gate.for_one_call()
        admitted = carry_out(gate.admit(call), config)
        if isinstance(admitted, Replacement):
            return self._formatted(admitted.value)
        outcome = carry_out(gate.waited(admitted), config)
        if isinstance(outcome, Replacement):
            return self._formatted(outcome.value)
        if outcome is None:
            quieter = hushed(config)
            try:
                with quiet(quieter):
                    asked = _input(admitted, quieter)
                    outcome = Outcome(self.tool.invoke(asked, quieter))
            except Exception as error:
                if is_control_flow(error):
                    raise
                outcome = Outcome(failure=error)
            carry_out(gate.made(admitted, outcome), config)
        # Outside of `except`: an error raised from here must not carry the other one along.
        if outcome.failure is not None:
            replaced = carry_out(gate.excuse(admitted, outcome), config)
            return self._instead(replaced, outcome.failure)
        return self._formatted(carry_out(gate.settle(admitted, outcome), config))

    async def _arun(
        self,
        call: Call,
        config: RunnableConfig,
        run_manager: AsyncCallbackManagerForToolRun | None = None,
    ) -> Any:
        config = patch_config(config, callbacks=run_manager.get_child()) if run_manager else config
        with self.gate.safeguard.waiting.working(config):
            return await self._acalled(call, config)

    async def _acalled(self, call: Call, config: RunnableConfig) -> Any:
        gate = self.gate.for_one_call()
        admitted = await acarry_out(gate.admit(call), config)
        if isinstance(admitted, Replacement):
            return self._formatted(admitted.value)
        outcome = await acarry_out(gate.waited(admitted), config)
        if isinstance(outcome, Replacement):
            return self._formatted(outcome.value)
        if outcome is None:
            quieter = hushed(config)
            try:
                with quiet(quieter):
                    asked = _input(admitted, quieter)
                    outcome = Outcome(await self.tool.ainvoke(asked, quieter))
            except Exception as error:
                if is_control_flow(error):
                    raise
                outcome = Outcome(failure=error)
            await acarry_out(gate.made(admitted, outcome), config)
        # Outside of `except`: an error raised from here must not carry the other one along.
        if outcome.failure is not None:
            replaced = await acarry_out(gate.excuse(admitted, outcome), config)
            return self._instead(replaced, outcome.failure)
        return self._formatted(await acarry_out(gate.settle(admitted, outcome), config))

    def _instead(self, replaced: Replacement | None, failure: Exception) -> Any:
        if replaced is None:
            raise failure
        return self._formatted(replaced.value)

    def _formatted(self, result: Any) -> Any:
        """Return a result as `BaseTool.run` expects it."""
        if self.response_format == "content_and_artifact":
            return result, getattr(result, "artifact", None)
        return result


def guard_tool(
    tool: BaseTool | Callable[..., Any],
    guard: str | Path | Guard | Sequence[str | Path | Guard] | None = None,
    policy: Policy | Mapping[str, Any] | str | Path | None = None,
    *,
    safeguard: Safeguard | None = None,
    input: bool = True,
    output: bool = True,
    on_block: OnBlock = "refuse",
) -> GuardedTool:
    """Guard a tool.

    Before it runs, its arguments are checked: the guard reads the tool's name, its description and
    the arguments, as side `tool_input`; a classifier, which would take a description for an order,
    the arguments alone. What it returns is checked before the model reads it, as
    side `tool_output`, and so is the text of an error it raises: an instruction hidden in a web
    page reaches nobody. A result that a policy has rewritten loses only the part that offends.

    The guard sees the call, and with the result the call that led to it. So that it also sees the
    conversation before, guard the tools of an agent with `ToolGuardMiddleware`.

    A blocked call is not made. The model is told why in a `ToolMessage` with `status="error"`,
    which repeats nothing of what was blocked; its record stands in `response_metadata`. What a
    message carries beside its text, its artifact, is not judged: models do not read it. It goes
    when the text is blocked or rewritten.

    A handler that asks a person by interrupting a LangGraph run may decide about arguments and
    results. While a person decides, the result waits (see `held` of `Safeguard`), and the tool does
    not run again. If what waited is gone, the model is told so. In an agent each call is a step of
    its own; calls made at once in one node of your own graph, such as a `ToolNode`, are asked about
    one after the other, and each runs once.

    Args:
        tool: Any tool, or a function to make one of.
        guard: What judges: a name, a folder, a `Guard`, or several; the embedded guard if left out.
        policy: What to do about what it sees; the default policy if left out.
        safeguard: Instead of `guard` and `policy`: a `Safeguard`, which may be shared.
        input: Whether arguments are checked. Tools that only read can do without.
        output: Whether results are checked.
        on_block: `"refuse"` tells the model; where no model called, the text is returned.
            `"raise"` raises `ContentBlockedError`.

    Returns:
        A tool that can stand wherever `tool` could.

    Raises:
        ConfigurationError: A value is wrong; the message names it and what is allowed.

    Example:
        ```python
        agent = create_agent(model, [guard_tool(search), guard_tool(send_mail)])
        ```
    """
    if not isinstance(tool, BaseTool):
        if isinstance(tool, Mapping) or not callable(tool) or isinstance(tool, type):
            raise ConfigurationError(
                f"a {type(tool).__name__} is no tool that runs here; allowed: a tool, or a function"
            )
        tool = tool_from(tool)
    return GuardedTool.around(
        tool, tool_gate(guard, policy, safeguard, input=input, output=output, on_block=on_block)
    )


def tool_gate(
    guard: Any,
    policy: Any,
    safeguard: Safeguard | None,
    *,
    input: bool,
    output: bool,
    on_block: str,
) -> ToolGate:
    """Check the options of whatever guards tools, and load the guard.

    Raises:
        ConfigurationError: A value is wrong; the message names it and what is allowed.
    """
    check_either(safeguard, guard, policy)
    for option, value in (("input", input), ("output", output)):
        if not isinstance(value, bool):
            raise ConfigurationError.unknown(option, value, (True, False))
    if not (input or output):
        raise ConfigurationError("input=False, output=False: there is nothing to check")
    if on_block not in ("refuse", "raise"):
        raise ConfigurationError.unknown("on_block", on_block, ("refuse", "raise"))
    safeguard = safeguard or Safeguard(guard, policy)
    if input:
        safeguard.require("tool_input")
    if output:
        safeguard.require("tool_output")
    return ToolGate(safeguard, input, output, cast(OnBlock, on_block))


def _input(call: Call, config: RunnableConfig) -> Any:
    """Return what to invoke the inner tool with; what the graph injects is hushed, too."""
    if not isinstance(call.arguments, dict):
        return call.arguments
    arguments = {key: _unstreamed(item, config) for key, item in call.arguments.items()}
    if call.id is None:
        return arguments
    return {"type": "tool_call", "id": call.id, "name": call.name, "args": arguments}


def _unstreamed(value: Any, config: RunnableConfig) -> Any:
    """Cut a LangGraph runtime off the streams of its graph."""
    if not is_dataclass(value) or not hasattr(value, "stream_writer"):
        return value
    changes: dict[str, Any] = {"stream_writer": lambda *_args, **_kwargs: None}
    if hasattr(value, "config"):
        changes["config"] = config
    return replace(cast(Any, value), **changes)


def _only(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if args and (kwargs or len(args) > 1 or not isinstance(args[0], str)):
        raise ToolException("a guarded tool takes its arguments by name")
    return args[0] if args else kwargs
