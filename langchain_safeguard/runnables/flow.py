"""What happens to an input between two guards, and in which order.

It stands here once, for one input or many, sync and async: `flow` is a generator that yields the
work it wants done and gets the results sent in. `drivers.py` does the work.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from langchain_core.runnables import Runnable

from langchain_safeguard.conversation import Conversation
from langchain_safeguard.decision import Decision
from langchain_safeguard.errors import ContentBlockedError, SafeguardError, UnreadableInputError
from langchain_safeguard.holding.error_words import text_of_error
from langchain_safeguard.holding.waiting import LOST_MESSAGE
from langchain_safeguard.policy import Action
from langchain_safeguard.runnables.gate import Gate
from langchain_safeguard.runnables.kinds import kind_of
from langchain_safeguard.runnables.reading import answered, rewritten_value

Mode = Literal["sequential", "parallel"]


@dataclass(frozen=True, slots=True)
class Passage:
    """An input on its way through: the value for the next step, and how it was read."""

    value: Any
    conversation: Conversation

    def after(self, decision: Decision) -> Passage:
        """Return what goes on when the decision lets it.

        Raises:
            UnreadableInputError: A rewritten text cannot be put back.
        """
        if decision.passes:
            return self
        value = rewritten_value(self.value, decision)
        return Passage(value, self.conversation.replaced("input", decision.text))


@dataclass(frozen=True, slots=True)
class Plan:
    """What is guarded by what; see `GuardedSteps`."""

    entry: Gate | None
    lead: Runnable[Any, Any] | None
    steps: Runnable[Any, Any] | None
    exit: Gate | None
    mode: Mode
    check_every: int

    def arrive(self, value: Any) -> Passage:
        """Read an input.

        Raises:
            UnreadableInputError: It has to be judged and cannot be read.
        """
        try:
            return Passage(value, Conversation.of(value))
        except UnreadableInputError:
            if self.entry is not None:
                raise
        # Only the answer is judged, and there is no prompt to judge it with.
        return Passage(value, Conversation(()))

    def refusal(self, decision: Decision, *, chunk: bool = False) -> Any:
        """Make the refusal for a blocked input.

        Raises:
            ContentBlockedError: There is to be none, or none can be made.
        """
        if self.entry is None or self.steps is None:
            raise ContentBlockedError(decision)
        # Whoever says what a refused answer looks like has said it for a refused input, too.
        fallback = self.exit.refusal if self.exit else None
        return self.entry.refuse(decision, kind_of(self.steps), chunk=chunk, fallback=fallback)

    def settled_error(
        self, decision: Decision, error: Exception, *, chunk: bool = False
    ) -> Exception | Any:
        """Return an error of the steps if its text passes, and else the refusal of their answer.

        Raises:
            ContentBlockedError: There is to be no refusal, or none can be made.
        """
        if decision.passes:
            return error
        if self.exit is None or self.steps is None:
            raise ContentBlockedError(decision)
        if decision.action is Action.REWRITE:
            # There is no answer whose text could be another.
            raise ContentBlockedError(decision)
        return self.exit.refuse(decision, kind_of(self.steps), chunk=chunk)

    def answered(self, passage: Passage, answer: Any) -> Conversation:
        """Return the conversation that an answer ends; without steps, the input is the answer."""
        if self.steps is None:
            return answered(Conversation(()), answer)
        # What a leading step has made is not the caller's, and nobody has checked it.
        known = passage.conversation.turns if self.lead is None else ()
        return answered(passage.conversation, answer, frozenset(known))


@dataclass(frozen=True, slots=True)
class Judge:
    """Ask a gate about conversations, by item; the result is a decision for each."""

    gate: Gate
    conversations: Mapping[int, Conversation]
    outputs: Mapping[int, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Wait:
    """Look for an answer from before a run was interrupted; the result is `Found`, or `None`."""

    gate: Gate
    conversation: Conversation
    item: int


@dataclass(frozen=True, slots=True)
class Recall:
    """Ask a gate for answers that were held for review, by item.

    The result is an answer, or why it cannot be had, for each item that has one.
    """

    gate: Gate
    prompts: Mapping[int, Conversation]


@dataclass(frozen=True, slots=True)
class Run:
    """Call steps on values, by item; the result is an output, or an exception, for each."""

    steps: Runnable[Any, Any]
    values: Mapping[int, Any]


@dataclass(frozen=True, slots=True)
class Both:
    """Do both at the same time; the result is both results.

    Where the decision does not let an input pass as it is, the call is given up, and has no result.
    """

    judge: Judge
    run: Run


Step = Judge | Recall | Wait | Run | Both
Flow = Generator[Step, Any, list[Any]]


def flow(plan: Plan, inputs: Sequence[Any], *, parallel: bool = False) -> Flow:
    """Take inputs through a plan.

    Args:
        plan: What is guarded by what.
        inputs: One input or many.
        parallel: Whether the steps may start before the verdict on the input.

    Returns:
        For each input what comes out of it, or the exception that it led to.
    """
    done: dict[int, Any] = {}
    passages: dict[int, Passage] = {}
    for item, value in enumerate(inputs):
        try:
            passages[item] = plan.arrive(value)
        except UnreadableInputError as error:
            done[item] = error
    outputs: dict[int, Any] = {}
    if plan.entry is not None:
        outputs = yield from _enter(plan, plan.entry, passages, done, parallel)
    if plan.lead is not None:
        outputs |= yield from _lead(plan, plan.lead, passages)
    if plan.steps is not None and plan.exit is not None:
        for item in sorted(passages.keys() - outputs.keys()):
            outputs |= yield from _waited(plan, plan.exit, item, passages, done)
    waiting = {i: passage.value for i, passage in passages.items() if i not in outputs}
    if plan.steps is None:
        outputs |= waiting
    elif waiting:
        if plan.exit is not None:
            outputs |= yield Recall(plan.exit, {i: passages[i].conversation for i in waiting})
        outputs |= yield Run(plan.steps, {i: v for i, v in waiting.items() if i not in outputs})
    yield from _leave(plan, passages, outputs, done)
    return [done[item] for item in range(len(inputs))]


def _enter(
    plan: Plan, gate: Gate, passages: dict[int, Passage], done: dict[int, Any], parallel: bool
) -> Generator[Any, Any, dict[int, Any]]:
    """Judge the inputs; those that stay outside move from `passages` to `done`."""
    judge = Judge(gate, {i: passage.conversation for i, passage in passages.items()})
    outputs: dict[int, Any] = {}
    if not passages:
        return outputs
    if parallel and plan.steps is not None:
        run = Run(plan.steps, {i: passage.value for i, passage in passages.items()})
        decisions, outputs = yield Both(judge, run)
    else:
        decisions = yield judge
    for item, decision in decisions.items():
        try:
            if decision.passes or decision.action is Action.REWRITE:
                passages[item] = passages[item].after(decision)
                continue
            done[item] = plan.refusal(decision)
        except SafeguardError as error:
            done[item] = error
        del passages[item]
    return outputs


def _lead(
    plan: Plan, lead: Runnable[Any, Any], passages: dict[int, Passage]
) -> Generator[Any, Any, dict[int, Any]]:
    """Run the steps before the prompt; what comes out of them is read anew."""
    results = yield Run(lead, {i: passage.value for i, passage in passages.items()})
    failed = {i: result for i, result in results.items() if isinstance(result, Exception)}
    for item in results.keys() - failed.keys():
        passages[item] = plan.arrive(results[item])
    return failed


def _waited(
    plan: Plan, gate: Gate, item: int, passages: dict[int, Passage], done: dict[int, Any]
) -> Generator[Any, Any, dict[int, Any]]:
    """Find an answer that waited for a person; if it is gone, it is refused."""
    found = yield Wait(gate, plan.answered(passages[item], ""), item)
    if found is None:
        return {}
    if found.held is not None:
        return {item: found.held.value}
    del passages[item]
    try:
        kind = None if plan.steps is None else kind_of(plan.steps)
        done[item] = gate.refuse(found.loss(LOST_MESSAGE), kind)
    except SafeguardError as error:
        done[item] = error
    return {}


def _leave(
    plan: Plan, passages: dict[int, Passage], outputs: dict[int, Any], done: dict[int, Any]
) -> Generator[Any, Any, None]:
    """Judge the outputs, errors among them, and put what becomes of each into `done`."""
    if plan.exit is None:
        done |= outputs
        return
    conversations: dict[int, Conversation] = {}
    for item, output in outputs.items():
        try:
            if not isinstance(output, Exception):
                conversations[item] = plan.answered(passages[item], output)
            elif text := text_of_error(output):
                conversations[item] = plan.answered(passages[item], text)
            else:
                done[item] = output
        except UnreadableInputError as error:
            done[item] = error
    if not conversations:
        return
    decisions = yield Judge(plan.exit, conversations, outputs)
    for item, decision in decisions.items():
        try:
            if isinstance(outputs[item], Exception):
                done[item] = plan.settled_error(decision, outputs[item])
            else:
                done[item] = plan.exit.settled(decision, outputs[item])
        except SafeguardError as error:
            done[item] = error
