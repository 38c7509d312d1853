"""What is checked of a call of a tool, and what becomes of it: logic only.

Plans yield what they want decided, and get the decision sent in: see `langchain_safeguard.plans`.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from langchain_core.messages import ToolMessage

from langchain_safeguard.conversation import Conversation, Turn
from langchain_safeguard.decision import Decision
from langchain_safeguard.errors import ContentBlockedError
from langchain_safeguard.excision import PartRewriter
from langchain_safeguard.holding.error_words import words_of
from langchain_safeguard.holding.held import Outcome
from langchain_safeguard.policy import DEFAULT_MESSAGE, Action
from langchain_safeguard.readable import Readable
from langchain_safeguard.refusal import RECORD, recorded
from langchain_safeguard.safeguard import Safeguard
from langchain_safeguard.taxonomy import Side
from langchain_safeguard.tools.steps import Ask, Fetch, Note, Plan, Recall

OnBlock = Literal["refuse", "raise"]


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool.

    Attributes:
        name: The tool's name.
        description: What it says of itself.
        arguments: All that it is called with.
        injected: The names of arguments that the application adds; nobody judges those.
        id: The id of the model's call; `None` if no model called.
        context: The turns of the conversation that led to it, where known.
    """

    name: str
    description: str
    arguments: Any
    injected: Collection[str] = ()
    id: str | None = None
    context: tuple[Turn, ...] = ()

    @property
    def readable(self) -> Readable:
        """Return what the model, or whoever called, has written."""
        if not isinstance(self.arguments, dict):
            return Readable.of(self.arguments)
        shown = {key: item for key, item in self.arguments.items() if key not in self.injected}
        return Readable.of(shown)

    @property
    def header(self) -> str:
        """Return what stands in front of the arguments when they are judged."""
        return f"Tool: {self.name}\nDescription: {self.description}\nArguments:\n"

    def with_arguments(self, arguments: Any) -> Call:
        """Return the call with other arguments in place of those that were judged."""
        if isinstance(self.arguments, dict):
            arguments = {**self.arguments, **arguments}
        return replace(self, arguments=arguments)


@dataclass(frozen=True, slots=True)
class Replacement:
    """What is returned in place of a result, or of a call that is not made."""

    value: Any


class Ledger:
    """What was judged during one call, so that two who watch over it do not judge it twice."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._judged: set[tuple[Side, str, tuple[str, ...]]] = set()

    def add(self, side: Side, value: Readable) -> None:
        """Note what passed, or was put in place of what did not."""
        self._judged.add((side, value.text, value.unchecked))

    def knows(self, side: Side, value: Readable) -> bool:
        """Tell whether just this was noted."""
        return (side, value.text, value.unchecked) in self._judged


@dataclass(frozen=True, slots=True)
class ToolGate:
    """Checks what goes into a tool and what comes out of it.

    Attributes:
        safeguard: What judges.
        input: Whether arguments are checked.
        output: Whether results are.
        on_block: Whether a block is told to the model or raises.
        ledger: What was judged of this call already.
        place: What tells this gate from another one around the same tool.
        one_call: Whether it is for one call, about which others know as well.
    """

    safeguard: Safeguard
    input: bool = True
    output: bool = True
    on_block: OnBlock = "refuse"
    ledger: Ledger = field(default_factory=Ledger)
    place: str = "tool"
    one_call: bool = False

    def for_one_call(self) -> ToolGate:
        """Return the gate for one call: what passed in another one may not pass in this one."""
        return self if self.one_call else replace(self, ledger=Ledger(), one_call=True)

    def admit(self, call: Call) -> Plan[Call | Replacement]:
        """Check the arguments: the call to make comes back, or what to return in place of it."""
        value = call.readable
        if not self.input or value.empty or self.ledger.knows("tool_input", value):
            return call
        rewriter = PartRewriter(self._asking(call), "tool_input", value, call.header)
        header = call.header
        turn = Turn("assistant", header + value.text, value.unchecked, preamble=header)
        conversation = Conversation((*call.context, turn))
        decision = yield Ask(rewriter.safeguard, conversation, "tool_input")
        if decision.action is Action.REWRITE:
            arguments = _value(rewriter)
            if decision.resolved_by is not None:
                arguments = _arguments(decision.text, call)
            if arguments is not None:
                call = call.with_arguments(arguments)
                self.ledger.add("tool_input", call.readable)
                return call
        if decision.passes:
            self.ledger.add("tool_input", value)
            return call
        return self._refused(call, decision, f"The tool {call.name!r} was not called: its input")

    def waited(self, call: Call) -> Plan[Outcome | Replacement | None]:
        """Find what came of this call before a person was asked about it; it is not made again.

        Returns:
            It; what is told if it is gone; `None` if the call was not made.
        """
        if not self.safeguard.waiting.active:
            return None
        conversation = _returned(call, Readable.of(""))
        asked = Conversation(conversation.turns[:-1])
        if recalled := (yield Fetch(self.safeguard, asked)):
            return Outcome(_addressed(recalled.answer, call))
        found = yield Recall(self._asking(call), conversation)
        if found is None:
            return None
        if found.held is not None:
            outcome: Outcome = found.held.value
            return outcome
        what = (
            f"The tool {call.name!r} was called, but its result was lost while it was held for "
            "review. It was not called again."
        )
        decision = found.loss(what)
        if self.on_block == "raise":
            raise ContentBlockedError(decision)
        told = _told(call, decision, what, "error")
        self.ledger.add("tool_output", Readable.of(told))
        return Replacement(told)

    def made(self, call: Call, outcome: Outcome) -> Plan[None]:
        """Note that a call was made: another one in the same step may interrupt both."""
        if self.safeguard.waiting.active:
            yield Note(self._asking(call), _returned(call, Readable.of("")), outcome)

    def settle(self, call: Call, outcome: Outcome) -> Plan[Any]:
        """Check a result: it comes back, or what is put in place of it."""
        result = outcome.result
        value = Readable.of(result)
        if not self.output or value.empty or self.ledger.knows("tool_output", value):
            return result
        rewriter = PartRewriter(self._asking(call), "tool_output", value)
        conversation = _returned(call, value, result)
        decision = yield Ask(rewriter.safeguard, conversation, "tool_output", outcome)
        if decision.passes:
            self.ledger.add("tool_output", value)
            return recorded(result, decision) if isinstance(result, ToolMessage) else result
        if decision.action is not Action.REWRITE:
            what = f"The result of the tool {call.name!r} was withheld: it"
            return self._refused(call, decision, what).value
        if decision.resolved_by is None:
            result = _value(rewriter)
        elif isinstance(result, ToolMessage):
            result = result.model_copy(update={"content": decision.text})
        else:
            result = _told(call, decision, decision.text, "success")
        result = _without_artifact(result, decision)
        self.ledger.add("tool_output", Readable.of(result))
        return result

    def excuse(self, call: Call, outcome: Outcome) -> Plan[Replacement | None]:
        """Check what the error of a tool says: `None` if it may be raised.

        Raises:
            ContentBlockedError: It may not, and no model waits for a result.
        """
        error = outcome.failure
        assert error is not None
        value = Readable.of(words_of(error))
        if not self.output or value.empty or self.ledger.knows("tool_output", value):
            return None
        conversation = _returned(call, value, error)
        decision = yield Ask(self._asking(call), conversation, "tool_output", outcome)
        if decision.passes:
            self.ledger.add("tool_output", value)
            return None
        if call.id is None:
            # Whoever expects an error must not take words for a result.
            raise ContentBlockedError(decision)
        if decision.action is Action.REWRITE:
            told = _told(call, decision, decision.text, "error")
            self.ledger.add("tool_output", Readable.of(told))
            return Replacement(told)
        return self._refused(
            call, decision, f"The tool {call.name!r} failed. Its error was withheld: it"
        )

    def _asking(self, call: Call) -> Safeguard:
        return self.safeguard.asking_as(f"{self.place}:{call.id}")

    def _refused(self, call: Call, decision: Decision, what: str) -> Replacement:
        if self.on_block == "raise":
            raise ContentBlockedError(decision)
        text = f"{what} {_reason(decision)}."
        if decision.text != DEFAULT_MESSAGE:
            # A policy's own words say more than that it cannot help.
            text = f"{text} {decision.text}"
        value = _told(call, decision, text, "error")
        self.ledger.add("tool_output", Readable.of(value))
        return Replacement(value)


def _returned(call: Call, value: Readable, source: object = None) -> Conversation:
    """Return the conversation that ends with a result: the call it answers stands before it."""
    asked = Turn("assistant", call.header + call.readable.text)
    told = Turn("tool", value.text, value.unchecked, source)
    return Conversation((*call.context, asked, told))


def _addressed(result: Any, call: Call) -> Any:
    """Return an earlier result as that of this call: the model may have asked anew."""
    if not isinstance(result, ToolMessage) or call.id is None:
        return result
    return result.model_copy(update={"tool_call_id": call.id})


def _told(call: Call, decision: Decision, text: str, status: Literal["success", "error"]) -> Any:
    """Return what the model reads, or just the text if no model called."""
    if call.id is None:
        return text
    return ToolMessage(
        text,
        name=call.name,
        tool_call_id=call.id,
        status=status,
        response_metadata={RECORD: decision.summary()},
    )


def _without_artifact(result: Any, decision: Decision) -> Any:
    """Take off what a message carries beside its text: it may well say the same in full."""
    if isinstance(result, list):
        return [_without_artifact(item, decision) for item in result]
    if not isinstance(result, ToolMessage):
        return result
    metadata = {**result.response_metadata, RECORD: decision.summary()}
    return result.model_copy(update={"artifact": None, "response_metadata": metadata})


def _arguments(text: str, call: Call) -> Any:
    """Read the arguments that someone wrote in place of those judged; `None` if they are none."""
    if not isinstance(call.arguments, dict):
        return text
    try:
        arguments = json.loads(text)
    except ValueError:
        return None
    if not isinstance(arguments, dict) or set(arguments) & set(call.injected):
        return None
    return arguments


def _value(rewriter: PartRewriter) -> Any:
    assert rewriter.value is not None
    return rewriter.value.value


def _reason(decision: Decision) -> str:
    """Say why something was blocked, without any of its words."""
    if decision.rule == "on_failure":
        reasons = [verdict.reason for verdict in decision.verdicts if verdict.failed]
        return f"could not be checked ({', '.join(filter(None, reasons)) or 'no verdict'})"
    if decision.rule == "on_unchecked":
        parts = ", ".join(dict.fromkeys(decision.unchecked))
        return f"holds what cannot be checked ({parts})"
    return f"was found unsafe ({', '.join(decision.categories) or 'no category'})"
