"""The middleware that checks what an agent's users say and what its model answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NotRequired

from langchain.agents import middleware as langchain_middleware
from langchain.agents.middleware import (
    AgentMiddleware,
    AgentState,
    ModelRequest,
    ModelResponse,
    hook_config,
)
from langchain.agents.middleware.types import PrivateStateAttr
from langchain.agents.structured_output import StructuredOutputError
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables.config import ensure_config

from langchain_safeguard.conversation import Conversation
from langchain_safeguard.decision import Decision
from langchain_safeguard.either import check_either
from langchain_safeguard.errors import ConfigurationError, ContentBlockedError
from langchain_safeguard.guards import Guard
from langchain_safeguard.holding.waiting import LOST_MESSAGE, Found
from langchain_safeguard.middleware.agent_model import AgentModel, Ledger
from langchain_safeguard.middleware.naming import given_guards, middleware_name
from langchain_safeguard.middleware.user_turns import Review, review
from langchain_safeguard.plans import adrive, drive
from langchain_safeguard.policy import Action, Policy
from langchain_safeguard.refusal import RECORD, recorded, refusal_message, to_hold, with_text
from langchain_safeguard.safeguard import Safeguard
from langchain_safeguard.stage import staged
from langchain_safeguard.streaming.guarded_stream import OnBlock

Handler = Callable[[ModelRequest[Any]], ModelResponse[Any]]
AsyncHandler = Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]

_CHECKED = "safeguard_checked"
_RECALL: Any = {"side": "output"}
_REPLACED = (Action.BLOCK, Action.REWRITE)


def _merged(
    old: Mapping[str, list[str]] | None, new: Mapping[str, list[str]]
) -> dict[str, list[str]]:
    return {**(old or {}), **new}


@dataclass(frozen=True, slots=True)
class _Judge:
    """Check an answer; the result is the decision."""

    conversation: Conversation
    keep: AIMessage | None


class SafeguardState(AgentState[Any]):
    """The agent's state with the marks of checked turns, by middleware; no caller sees them."""

    safeguard_checked: NotRequired[Annotated[dict[str, list[str]], PrivateStateAttr, _merged]]


class SafeguardMiddleware(AgentMiddleware[SafeguardState, Any, Any]):
    """Checks what an agent's users say and what its model answers.

    A blocked user turn ends the run with a refusal, and the model is not called. A blocked answer,
    its tool calls with it, is replaced by a refusal before anything else sees it: it is in no
    state, no checkpoint and no stream. Safe answers stream, held back until they are checked.

    Results of tools are not checked here, and an agent that is another one's tool needs a
    middleware of its own. Middleware that stands behind this one in the agent's list runs quietly
    while it handles a model call: its own model calls and custom stream data show in no stream.

    A handler that asks a person by interrupting the run can decide about users' turns and about
    answers. While a person decides, the answer waits (see `held` of `Safeguard`) and is nowhere
    else; in the stream of tokens stands that it is held for review. When the run goes on, the model
    is not called again: the answer that was judged is the one that is released.

    Args:
        guard: What judges: a name, a folder, a `Guard`, or several; the embedded guard if left out.
        policy: What to do about what it sees; the default policy if left out.
        safeguard: Instead of `guard` and `policy`: a `Safeguard`, which may be shared.
        input: Whether users' turns are checked, each once.
        output: Whether answers are checked, each with the conversation that led to it.
        on_block: `"refuse"` ends the run with a refusal. `"raise"` raises `ContentBlockedError`;
            a run that fails saves nothing, so the next one on that thread meets the turn again.
        check_every: After how many new tokens, estimated, a stream is checked again.
        quarantine: Whether the text of a blocked user turn is taken out of the state, so that
            neither the model nor a guard meets it again in later turns. `False` keeps it.
        name: What to call it in the agent's graph. Two in one agent need two names; made of the
            guards, the policy and the side if left out. Give one to agents that are built anew
            while saved runs wait to go on.

    Raises:
        ConfigurationError: A value is wrong; the message names it and what is allowed.

    Example:
        ```python
        agent = create_agent(model, tools, middleware=[SafeguardMiddleware()])
        agent.invoke({"messages": [("user", "How do I bake bread?")]})
        ```
    """

    state_schema = SafeguardState

    def __init__(
        self,
        guard: str | Path | Guard | Sequence[str | Path | Guard] | None = None,
        policy: Policy | Mapping[str, Any] | str | Path | None = None,
        *,
        safeguard: Safeguard | None = None,
        input: bool = True,
        output: bool = True,
        on_block: OnBlock = "refuse",
        check_every: int = 32,
        quarantine: bool = True,
        name: str | None = None,
    ) -> None:
        """Check the values and load the guard."""
        super().__init__()
        check_either(safeguard, guard, policy)
        flags = {"input": input, "output": output, "quarantine": quarantine}
        for option, value in flags.items():
            if not isinstance(value, bool):
                raise ConfigurationError.unknown(option, value, (True, False))
        if not (input or output):
            raise ConfigurationError("input=False, output=False: there is nothing to check")
        if on_block not in ("refuse", "raise"):
            raise ConfigurationError.unknown("on_block", on_block, ("refuse", "raise"))
        if isinstance(check_every, bool) or not isinstance(check_every, int) or check_every < 1:
            raise ConfigurationError(f"check_every={check_every!r}; allowed: 1, 2, ...")
        if name is not None and (not isinstance(name, str) or not name or set(name) & set(":|")):
            raise ConfigurationError(f"name={name!r}; allowed: a text without ':' and '|'")
        self.safeguard = safeguard or Safeguard(guard, policy)
        self._input = input
        self._output = output
        self._on_block: OnBlock = on_block
        self._check_every = check_every
        self._quarantine = quarantine
        for side, wanted in (("input", input), ("output", output)):
            if wanted:
                self.safeguard.require(side)  # type: ignore[arg-type]
        self._name = name or middleware_name(
            type(self).__name__,
            given_guards(safeguard.guards if safeguard else guard, self.safeguard.guards),
            self.safeguard.policy.fingerprint if policy or safeguard else None,
            None if input and output else "input" if input else "output",
        )
        self._turns = self.safeguard.asking_as(self._name)
        self._answers = self.safeguard.asking_as(self._name, "answers")

    @property
    def name(self) -> str:
        """Return the name in the agent's graph."""
        return self._name

    @hook_config(can_jump_to=["end"])
    def before_agent(self, state: SafeguardState, runtime: Any) -> dict[str, Any] | None:
        """Check what the caller said, before any other `before_model` works with it."""
        return self._reviewed(drive(self._review(state, begun=True), self._check))

    @hook_config(can_jump_to=["end"])
    async def abefore_agent(self, state: SafeguardState, runtime: Any) -> dict[str, Any] | None:
        """Check what the caller said, before any other `before_model` works with it."""
        return self._reviewed(await adrive(self._review(state, begun=True), self._acheck))

    @hook_config(can_jump_to=["end"])
    def before_model(self, state: SafeguardState, runtime: Any) -> dict[str, Any] | None:
        """Check what has come in since: other middleware, tools and people add messages."""
        return self._reviewed(drive(self._review(state, begun=False), self._check))

    @hook_config(can_jump_to=["end"])
    async def abefore_model(self, state: SafeguardState, runtime: Any) -> dict[str, Any] | None:
        """Check what has come in since: other middleware, tools and people add messages."""
        return self._reviewed(await adrive(self._review(state, begun=False), self._acheck))

    def wrap_model_call(self, request: ModelRequest[Any], handler: Handler) -> ModelResponse[Any]:
        """Call the model so that only checked answers come back, or are heard of."""
        if not self._output:
            return handler(request)
        ledger, failure = Ledger(), None
        found = self._answers.waiting.recall(_prompt(request).answered(""), **_RECALL)
        if found is not None:
            response = ModelResponse([self._found(found, ledger)])
        else:
            with staged(ledger):
                try:
                    response = handler(self._guarded(request, ledger))
                except StructuredOutputError as error:
                    response, failure = _unparsed(error), error
        ledger.interrupt_for(response.result)
        return drive(self._settle(request, response, ledger, failure), self._judge)

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: AsyncHandler
    ) -> ModelResponse[Any]:
        """Call the model so that only checked answers come back, or are heard of."""
        if not self._output:
            return await handler(request)
        ledger, failure = Ledger(), None
        found = await self._answers.waiting.arecall(_prompt(request).answered(""), **_RECALL)
        if found is not None:
            response = ModelResponse([self._found(found, ledger)])
        else:
            with staged(ledger):
                try:
                    response = await handler(self._guarded(request, ledger))
                except StructuredOutputError as error:
                    response, failure = _unparsed(error), error
        ledger.interrupt_for(response.result)
        return await adrive(self._settle(request, response, ledger, failure), self._ajudge)

    @hook_config(can_jump_to=["end"])
    def after_model(self, state: SafeguardState, runtime: Any) -> dict[str, Any] | None:
        """End a run that would ask again and again for structured output that was blocked."""
        asked = state.get("structured_response", self) is None
        return {"jump_to": "end"} if asked and _is_replaced(state["messages"][-1]) else None

    @hook_config(can_jump_to=["end"])
    async def aafter_model(self, state: SafeguardState, runtime: Any) -> dict[str, Any] | None:
        """End a run that would ask again and again for structured output that was blocked."""
        return self.after_model(state, runtime)

    def _review(
        self, state: SafeguardState, *, begun: bool
    ) -> Generator[Conversation, Decision, Review | None]:
        if not self._input:
            return None
        known = state.get("safeguard_checked", {}).get(self.name, [])
        return (
            yield from review(state["messages"], known, quarantine=self._quarantine, begun=begun)
        )

    def _reviewed(self, review: Review | None) -> dict[str, Any] | None:
        if review is None or not review.checked:
            return None
        update: dict[str, Any] = {_CHECKED: {self.name: review.known}}
        messages = review.updates
        if review.refused is not None:
            if self._on_block == "raise":
                raise ContentBlockedError(review.refused)
            messages = [*messages, refusal_message(review.refused)]
            update["jump_to"] = "end"
        return {**update, "messages": messages} if messages else update

    def _guarded(self, request: ModelRequest[Any], ledger: Ledger) -> ModelRequest[Any]:
        model = AgentModel(
            model=request.model,
            safeguard=self.safeguard.asking_as(self.name, "model", ledger.interrupted_by),
            check_input=False,
            on_block=self._on_block,
            check_every=self._check_every,
            ledger=ledger,
        )
        return request.override(model=model)

    def _settle(
        self,
        request: ModelRequest[Any],
        response: ModelResponse[Any],
        ledger: Ledger,
        failure: StructuredOutputError | None,
    ) -> Generator[_Judge, Decision, ModelResponse[Any]]:
        """Judge the answers nobody judged: of a model that other middleware put in place of ours.

        Args:
            request: What led there.
            response: What came back.
            ledger: What was judged on the way.
            failure: Raised if the answer it is about passes.
        """
        prompt = _prompt(request)
        result: list[BaseMessage] = []
        for message in response.result:
            if isinstance(message, AIMessage) and message not in ledger:
                decision = yield _Judge(prompt.answered(message), to_hold(message))
                if decision.blocked and self._on_block == "raise":
                    raise ContentBlockedError(decision)
                if not decision.passes:
                    stand_in = refusal_message if decision.blocked else _rewritten
                    return ModelResponse([stand_in(decision, message)])
                message = recorded(message, decision)
            result.append(message)
        if failure is not None and not _is_replaced(result[-1]):
            raise failure
        return ModelResponse(result, response.structured_response)

    def _found(self, found: Found, ledger: Ledger) -> AIMessage:
        """Return an answer that waited for a person, or say that it is gone."""
        if found.held is not None:
            answer: AIMessage = found.held.value
            return answer
        decision = found.loss(LOST_MESSAGE)
        if self._on_block == "raise":
            raise ContentBlockedError(decision)
        refusal = refusal_message(decision)
        ledger.add(refusal)
        return refusal

    def _judge(self, step: _Judge) -> Decision:
        options: Any = {"config": ensure_config(), "keep": step.keep}
        return self._answers.check(step.conversation, side="output", **options)

    async def _ajudge(self, step: _Judge) -> Decision:
        options: Any = {"config": ensure_config(), "keep": step.keep}
        return await self._answers.acheck(step.conversation, side="output", **options)

    def _check(self, turns: Conversation) -> Decision:
        return self._turns.check(turns, side="input", config=ensure_config())

    async def _acheck(self, turns: Conversation) -> Decision:
        return await self._turns.acheck(turns, side="input", config=ensure_config())


def _prompt(request: ModelRequest[Any]) -> Conversation:
    return Conversation.of([*filter(None, [request.system_message]), *request.messages])


def _unparsed(error: StructuredOutputError) -> ModelResponse[Any]:
    """Return the answer that could not be parsed: it may be a refusal, which is no failure."""
    message = getattr(error, "ai_message", None)
    if message is None:
        raise error
    return ModelResponse([message])


def _rewritten(decision: Decision, message: AIMessage) -> AIMessage:
    return with_text(message, decision)


def _is_replaced(message: BaseMessage) -> bool:
    record = message.response_metadata.get(RECORD)
    return isinstance(record, dict) and record.get("action") in _REPLACED


if hasattr(langchain_middleware, "TracePolicy"):
    # What the hooks are given, and what they return, holds the conversation.
    SafeguardMiddleware.trace_policy = langchain_middleware.TracePolicy(
        process_inputs=langchain_middleware.omit_payload,
        process_outputs=langchain_middleware.omit_payload,
    )
