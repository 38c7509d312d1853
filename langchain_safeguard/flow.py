"""What is decided, in which order: guards, then policy, then rewriting or escalation.

The logic stands here once, for sync and async: `decision_flow` is a generator that yields the work
it wants done and gets the results sent in. It does no I/O itself; `Safeguard` drives it.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_safeguard.conversation import Conversation
from langchain_safeguard.decision import Decision, decide
from langchain_safeguard.errors import ReviewSetupError, SafeguardError
from langchain_safeguard.escalation.base import Escalation, Handler, Resolution, resolution_of
from langchain_safeguard.holding.asking import Deferred
from langchain_safeguard.holding.graph_task import is_control_flow
from langchain_safeguard.holding.waiting import HELD_MESSAGE
from langchain_safeguard.policy import Action, Policy, Rule
from langchain_safeguard.rewriters import as_rewriter, rewritten
from langchain_safeguard.taxonomy import Side
from langchain_safeguard.verdict import Verdict

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Judge:
    """Ask the guards about a conversation; the result is a verdict of each."""

    conversation: Conversation
    side: Side


@dataclass(frozen=True, slots=True)
class Apply:
    """Call a handler or a rewriter; the result is what it returns."""

    function: Any
    argument: Any


@dataclass(frozen=True, slots=True)
class Record:
    """Write down a decision; there is no result."""

    decision: Decision
    conversation: Conversation
    pending: bool = False


Flow = Generator[Judge | Apply | Record, Any, Decision]


def decision_flow(
    policy: Policy,
    handlers: Mapping[str, Handler],
    conversation: Conversation,
    side: Side,
    verdicts: Sequence[Verdict] | None = None,
) -> Flow:
    """Decide about one conversation.

    Args:
        policy: What to do about what the guards see.
        handlers: Who can be asked, by name, in the order in which to ask.
        conversation: What is judged.
        side: Which part of it.
        verdicts: The guards' verdicts where they are known already.
    """
    if verdicts is None:
        verdicts = yield Judge(conversation, side)
    decision, rule = decide(policy, conversation, side, verdicts)
    if decision.action is Action.REWRITE and rule is not None:
        decision = yield from _rewrite(policy, conversation, decision, rule)
    elif decision.action is Action.ESCALATE:
        # Recorded before anyone is asked: asking may leave this function for good (a human review
        # interrupts the run), and must not go without a trace.
        yield Record(decision, conversation, pending=True)
        decision = yield from _escalate(handlers, conversation, decision, rule)
        if decision.action is Action.ESCALATE:
            return decision
    yield Record(decision, conversation)
    return decision


def _rewrite(policy: Policy, conversation: Conversation, decision: Decision, rule: Rule) -> Flow:
    side = decision.side
    refused = replace(decision, action=Action.BLOCK)
    text = conversation.checked(side).text
    for _ in range(policy.rewrite_rounds):
        try:
            text = rewritten((yield Apply(as_rewriter(rule.rewrite), text)))
        except Exception as error:
            if is_control_flow(error):
                raise
            logger.error("rule %r could not rewrite: %s", rule.name, type(error).__name__)
            return refused
        better = conversation.replaced(side, text)
        again, next_rule = decide(policy, better, side, (yield Judge(better, side)))
        if again.passes:
            return replace(decision, text=text, verdicts=(*decision.verdicts, *again.verdicts))
        if again.action is not Action.REWRITE or next_rule is None:
            break
        rule = next_rule
    return refused


def _escalate(
    handlers: Mapping[str, Handler],
    conversation: Conversation,
    decision: Decision,
    rule: Rule | None,
) -> Flow:
    names = rule.escalate_to if rule is not None and rule.escalate_to else tuple(handlers)
    request = Escalation(conversation, decision.side, decision)
    for name in names:
        try:
            answer = yield Apply(handlers[name], request)
            if isinstance(answer, Deferred):
                return replace(decision, text=HELD_MESSAGE)
            resolution = resolution_of(answer)
        except Exception as error:
            if is_control_flow(error) or isinstance(error, ReviewSetupError):
                raise
            # Errors of ours hold no checked text, and say what to do.
            reason = error if isinstance(error, SafeguardError) else type(error).__name__
            logger.error("handler %r could not decide: %s", name, reason)
            continue
        if resolution is not None:
            return _resolved(request, resolution, name)
    return replace(decision, action=Action.BLOCK)


def _resolved(request: Escalation, resolution: Resolution, name: str) -> Decision:
    text = request.text if resolution.action.passes else resolution.text
    return replace(
        request.decision,
        action=resolution.action,
        text=request.decision.text if text is None else text,
        # A text that is held is not decided about.
        resolved_by=name if resolution.ticket is None else None,
        ticket=resolution.ticket,
    )
