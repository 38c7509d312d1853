"""The middleware that checks what an agent asks of its tools, and what they bring back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from langchain.agents import middleware as langchain_middleware
from langchain.agents.middleware import AgentMiddleware, AgentState
from langchain.tools.tool_node import ToolCallRequest
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables.config import ensure_config

from langchain_safeguard.conversation import Conversation, Turn
from langchain_safeguard.errors import ConfigurationError
from langchain_safeguard.guards import Guard
from langchain_safeguard.holding.graph_task import is_control_flow
from langchain_safeguard.holding.held import Outcome
from langchain_safeguard.middleware.naming import given_guards, middleware_name
from langchain_safeguard.policy import Policy
from langchain_safeguard.safeguard import Safeguard
from langchain_safeguard.tools.gate import (
    Call,
    Ledger,
    OnBlock,
    Replacement,
    ToolGate,
)
from langchain_safeguard.tools.guarded_tool import GuardedTool, tool_gate
from langchain_safeguard.tools.steps import acarry_out, carry_out

Handler = Callable[[ToolCallRequest], Any]
AsyncHandler = Callable[[ToolCallRequest], Awaitable[Any]]


class ToolGuardMiddleware(AgentMiddleware[AgentState[Any], Any, Any]):
    """Checks every call of an agent's tools as `guard_tool` does, tools that come later included.

    The guard sees the conversation that led to the call. What other middleware returns in place of
    a result (a retry's last error, a cached answer) is checked, too. Middleware that stands behind
    this one and brings tools of its own runs them itself: what those return is checked, but whoever
    listens to their events hears it before; guard such tools with `guard_tool`.

    A handler that asks a person by interrupting the run may decide about arguments and results;
    while a person decides, the result waits (see `held` of `Safeguard`), and the tool is not called
    again.

    Args:
        guard: What judges: a name, a folder, a `Guard`, or several; the embedded guard if left out.
        policy: What to do about what it sees; the default policy if left out.
        safeguard: Instead of `guard` and `policy`: a `Safeguard`, which may be shared.
        policies: Other policies for some tools, by name or by pattern, such as `{"send_*": ...}`.
            The first that fits holds.
        read_only: Names or patterns of tools that change nothing: their arguments are not checked.
        trusted: Names or patterns of tools whose results are not checked.
        input: Whether arguments are checked.
        output: Whether results are checked.
        on_block: `"refuse"` tells the model why, and the agent goes on; `"raise"` raises
            `ContentBlockedError`.
        name: What to call it in the agent's graph. Two in one agent need two names; made of the
            guards and the policy if left out.

    Raises:
        ConfigurationError: A value is wrong; the message names it and what is allowed.

    Example:
        ```python
        guard = ToolGuardMiddleware(read_only=["search", "read_*"])
        agent = create_agent(model, [search, send_mail], middleware=[guard])
        ```
    """

    def __init__(
        self,
        guard: str | Path | Guard | Sequence[str | Path | Guard] | None = None,
        policy: Policy | Mapping[str, Any] | str | Path | None = None,
        *,
        safeguard: Safeguard | None = None,
        policies: Mapping[str, Policy | Mapping[str, Any] | str | Path] | None = None,
        read_only: Collection[str] = (),
        trusted: Collection[str] = (),
        input: bool = True,
        output: bool = True,
        on_block: OnBlock = "refuse",
        name: str | None = None,
    ) -> None:
        """Check the values and load the guard."""
        super().__init__()
        if policies is not None and not isinstance(policies, Mapping):
            raise ConfigurationError(f"policies={policies!r}; allowed: a dict from name to policy")
        if name is not None and (not isinstance(name, str) or not name or set(name) & set(":|")):
            raise ConfigurationError(f"name={name!r}; allowed: a text without ':' and '|'")
        self._read_only = _patterns("read_only", read_only)
        self._trusted = _patterns("trusted", trusted)
        self._gate = tool_gate(
            guard, policy, safeguard, input=input, output=output, on_block=on_block
        )
        self.safeguard = self._gate.safeguard
        self._policies = {
            pattern: self.safeguard.variant(other) for pattern, other in (policies or {}).items()
        }
        self._name = name or middleware_name(
            type(self).__name__,
            given_guards(safeguard.guards if safeguard else guard, self.safeguard.guards),
            self.safeguard.policy.fingerprint if policy or safeguard else None,
            None if input and output else "tool_input" if input else "tool_output",
        )

    @property
    def name(self) -> str:
        """Return the name in the agent's graph."""
        return self._name

    def wrap_tool_call(self, request: ToolCallRequest, handler: Handler) -> Any:
        """Call the tool, if its arguments pass, and return what of its result does."""
        gate = self._gate_of(request)
        if gate is None:
            return handler(request)
        call, config = _call(request), ensure_config()
        admitted = carry_out(gate.admit(call), config)
        if isinstance(admitted, Replacement):
            return admitted.value
        outcome = carry_out(gate.waited(admitted), config)
        if isinstance(outcome, Replacement):
            return outcome.value
        if outcome is None:
            try:
                outcome = Outcome(handler(_guarded(request, admitted, gate)))
            except Exception as error:
                if is_control_flow(error):
                    raise
                outcome = Outcome(failure=error)
        if outcome.failure is None:
            return carry_out(gate.settle(admitted, outcome), config)
        replaced = carry_out(gate.excuse(admitted, outcome), config)
        if replaced is None:
            raise outcome.failure
        return replaced.value

    async def awrap_tool_call(self, request: ToolCallRequest, handler: AsyncHandler) -> Any:
        """Call the tool, if its arguments pass, and return what of its result does."""
        gate = self._gate_of(request)
        if gate is None:
            return await handler(request)
        call, config = _call(request), ensure_config()
        admitted = await acarry_out(gate.admit(call), config)
        if isinstance(admitted, Replacement):
            return admitted.value
        outcome = await acarry_out(gate.waited(admitted), config)
        if isinstance(outcome, Replacement):
            return outcome.value
        if outcome is None:
            try:
                outcome = Outcome(await handler(_guarded(request, admitted, gate)))
            except Exception as error:
                if is_control_flow(error):
                    raise
                outcome = Outcome(failure=error)
        if outcome.failure is None:
            return await acarry_out(gate.settle(admitted, outcome), config)
        replaced = await acarry_out(gate.excuse(admitted, outcome), config)
        if replaced is None:
            raise outcome.failure
        return replaced.value

    def _gate_of(self, request: ToolCallRequest) -> ToolGate | None:
        """Return what checks calls of this tool; nothing if nothing is to be checked."""
        name = request.tool_call["name"]
        gate = replace(
            self._gate,
            input=self._gate.input and not _fits(name, self._read_only),
            output=self._gate.output and not _fits(name, self._trusted),
            ledger=Ledger(),
            one_call=True,
            place=self.name,
        )
        for pattern, safeguard in self._policies.items():
            if fnmatchcase(name, pattern):
                gate = replace(gate, safeguard=safeguard)
                break
        return gate if gate.input or gate.output else None


def _guarded(request: ToolCallRequest, call: Call, gate: ToolGate) -> ToolCallRequest:
    """Put a guarded tool in place of the tool, so that nobody hears its result unchecked."""
    request = request.override(tool_call={**request.tool_call, "args": call.arguments})
    if request.tool is None:
        return request
    inside = replace(gate, place="tool")
    return request.override(tool=GuardedTool.around(request.tool, inside, call.context))


def _call(request: ToolCallRequest) -> Call:
    call = request.tool_call
    return Call(
        name=call["name"],
        description=request.tool.description if request.tool is not None else "",
        arguments=call["args"],
        id=call["id"],
        context=_context(request),
    )


def _context(request: ToolCallRequest) -> tuple[Turn, ...]:
    """Return the conversation up to the answer that makes the call."""
    state: Any = request.state
    if not isinstance(state, list):
        messages = state.get("messages") if isinstance(state, Mapping) else None
        state = messages if messages is not None else getattr(state, "messages", [])
    messages = [message for message in state if isinstance(message, BaseMessage)]
    for at, message in reversed([*enumerate(messages)]):
        calls = message.tool_calls if isinstance(message, AIMessage) else []
        if any(call["id"] == request.tool_call["id"] for call in calls):
            return Conversation.of(messages[:at]).turns if at else ()
    return ()


def _patterns(option: str, patterns: Any) -> tuple[str, ...]:
    if isinstance(patterns, str) or not all(isinstance(each, str) for each in patterns):
        raise ConfigurationError(f"{option}={patterns!r}; allowed: a list of names or patterns")
    return tuple(patterns)


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


if hasattr(langchain_middleware, "TracePolicy"):
    # What the hooks are given, and what they return, holds the conversation.
    ToolGuardMiddleware.trace_policy = langchain_middleware.TracePolicy(
        process_inputs=langchain_middleware.omit_payload,
        process_outputs=langchain_middleware.omit_payload,
    )
