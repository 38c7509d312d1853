"""The output check of a stream: nothing leaves before the text it belongs to was judged.

Each check judges the whole answer so far, in the context of the prompt. What is checked when, and
what may leave, is decided once, in `_Answer` and `_plan`, which do no I/O: the plan is a generator
that yields what it wants done, and two short drivers, one sync and one async, do it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.runnables import RunnableConfig

from langchain_safeguard.conversation import Conversation
from langchain_safeguard.decision import Decision
from langchain_safeguard.errors import ContentBlockedError, UnreadableInputError
from langchain_safeguard.hushed import aclose, close
from langchain_safeguard.policy import Action
from langchain_safeguard.refusal import recorded, refused, to_hold, with_text
from langchain_safeguard.safeguard import Safeguard
from langchain_safeguard.streaming.holdback import HoldBack
from langchain_safeguard.verdict import Verdict

OnBlock = Literal["refuse", "raise"]
Refuse = Callable[[Decision, Any], Any]

_END = object()


@dataclass(frozen=True, slots=True)
class _Pull:
    """Get the next chunk; the result is `_END` when there is none."""


@dataclass(frozen=True, slots=True)
class _Draft:
    """Judge the answer so far; the result is a decision nobody has acted on."""

    conversation: Conversation


@dataclass(frozen=True, slots=True)
class _Check:
    """Decide about the answer, and act on it; the result is a decision."""

    conversation: Conversation
    keep: Any
    verdicts: tuple[Verdict, ...] | None = None


@dataclass(frozen=True, slots=True)
class _Stop:
    """Close the upstream: it generates nothing from here on."""


@dataclass(frozen=True, slots=True)
class _Emit:
    """Let a chunk out."""

    chunk: Any


_Step = _Pull | _Draft | _Check | _Stop | _Emit


def guarded_stream(
    chunks: Iterator[Any],
    prompt: Conversation,
    safeguard: Safeguard,
    *,
    config: RunnableConfig | None = None,
    every: int = 32,
    on_block: OnBlock = "refuse",
    refuse: Refuse = refused,
) -> Generator[Any]:
    """Yield the chunks of an answer, each once the text up to and beyond it has passed a check.

    Texts and chunks of AI messages are checked while they grow; tool calls leave only after the
    last check. Anything else is gathered, judged once, and leaves as one value.

    Args:
        chunks: The unchecked answer; closed at a block, and when this generator is closed.
        prompt: What led to the answer.
        safeguard: What judges.
        config: The config of the guarded run; records go to its callbacks.
        every: After how many new tokens, estimated, it is judged again.
        on_block: Whether a block ends the stream with a refusal or with `ContentBlockedError`.
        refuse: Makes the refusal from a decision and a sample of the answer's type.

    Raises:
        ContentBlockedError: At a block, if so asked or if no refusal of that type can be made.
    """
    plan = _plan(prompt, safeguard.policy.message, every, on_block, refuse)
    result: Any = None
    try:
        while True:
            try:
                step = plan.send(result)
            except StopIteration:
                return
            result = None
            match step:
                case _Emit(chunk):
                    yield chunk
                case _Pull():
                    result = next(chunks, _END)
                case _Draft(conversation):
                    result = safeguard.draft(conversation)
                case _Check(conversation, keep, verdicts):
                    options: Any = {"config": config, "verdicts": verdicts, "keep": keep}
                    result = safeguard.check(conversation, side="output", **options)
                case _Stop():
                    close(chunks)
    finally:
        close(chunks)


async def aguarded_stream(
    chunks: AsyncIterator[Any],
    prompt: Conversation,
    safeguard: Safeguard,
    *,
    config: RunnableConfig | None = None,
    every: int = 32,
    on_block: OnBlock = "refuse",
    refuse: Refuse = refused,
) -> AsyncGenerator[Any]:
    """Do what `guarded_stream` does without blocking the event loop."""
    plan = _plan(prompt, safeguard.policy.message, every, on_block, refuse)
    result: Any = None
    try:
        while True:
            try:
                step = plan.send(result)
            except StopIteration:
                return
            result = None
            match step:
                case _Emit(chunk):
                    yield chunk
                case _Pull():
                    result = await anext(chunks, _END)
                case _Draft(conversation):
                    result = await safeguard.adraft(conversation)
                case _Check(conversation, keep, verdicts):
                    options: Any = {"config": config, "verdicts": verdicts, "keep": keep}
                    result = await safeguard.acheck(conversation, side="output", **options)
                case _Stop():
                    await aclose(chunks)
    finally:
        await aclose(chunks)


class _Answer:
    """An answer that grows: how to read it, join it, and what of it was let out."""

    def __init__(self, first: Any) -> None:
        self._kind = next((k for k in (str, AIMessageChunk) if isinstance(first, k)), object)
        self.grows = self._kind is not object
        self.whole: Any = None
        self.shown = ""
        self._new: list[Any] = []

    def add(self, chunk: Any) -> None:
        if self.grows and not isinstance(chunk, self._kind):
            raise UnreadableInputError(
                f"a stream of {self._kind.__name__} went on with a {type(chunk).__name__}"
            )
        self._new.append(chunk)

    def joined(self) -> Any:
        """Return all chunks as one, joined as LangChain joins the chunks of a stream."""
        if self._new:
            self.whole = joined([*([] if self.whole is None else [self.whole]), *self._new])
            self._new = []
        return self.whole

    def text_of(self, chunk: Any) -> str:
        return "\n".join(turn.text for turn in Conversation.of(chunk, "output").turns)

    def holds_calls(self, chunk: Any) -> bool:
        if not isinstance(chunk, AIMessageChunk):
            return False
        blocks = chunk.content if isinstance(chunk.content, list) else []
        types = [str(block.get("type")) for block in blocks if isinstance(block, dict)]
        return (
            bool(chunk.tool_call_chunks or chunk.tool_calls or chunk.invalid_tool_calls)
            or not chunk.additional_kwargs.keys().isdisjoint(("tool_calls", "function_call"))
            or any("tool" in type or "function" in type or "json" in type for type in types)
        )

    def show(self, chunk: Any) -> _Emit:
        self.shown += chunk if isinstance(chunk, str) else getattr(chunk, "text", "")
        return _Emit(chunk)


def joined(chunks: list[Any]) -> Any:
    """Join chunks as LangChain does: those that cannot be added replace what came before."""
    if all(isinstance(chunk, str) for chunk in chunks):
        return "".join(chunks)
    whole, *rest = chunks
    if rest and all(isinstance(chunk, AIMessageChunk) for chunk in chunks):
        return whole + rest
    for chunk in rest:
        if isinstance(chunk, BaseMessage):
            whole = chunk
            continue
        try:
            whole = whole + chunk
        except TypeError:
            whole = chunk
    return whole


def _plan(
    prompt: Conversation, message: str, every: int, on_block: OnBlock, refuse: Refuse
) -> Generator[_Step, Any, None]:
    chunk = yield _Pull()
    if chunk is _END:
        return
    answer = _Answer(chunk)
    # The overlap is never 0: the last chunk stays for the record of the last check.
    window = HoldBack[Any](every=every, overlap=max(every // 2, 1))
    open_question = False
    while chunk is not _END:
        answer.add(chunk)
        text = answer.text_of(chunk) if answer.grows else ""
        due = window.push(chunk, text, seal=answer.holds_calls(chunk))
        if answer.grows and due and not open_question:
            conversation = prompt.answered(answer.joined())
            draft = yield _Draft(conversation)
            if draft.blocked:
                yield _Stop()
                decision = yield _Check(conversation, to_hold(answer.joined()), draft.verdicts)
                yield from _refuse(answer, decision, window.finished(), on_block, refuse)
                return
            # What is to be rewritten or escalated is settled once the answer is complete.
            open_question = not draft.passes
            if draft.passes:
                yield from map(answer.show, window.passed())
        chunk = yield _Pull()
    whole = answer.joined()
    decision = yield _Check(prompt.answered(whole), to_hold(whole))
    held = window.finished()
    if decision.passes:
        yield from _release(answer, decision, held)
    elif decision.action is Action.REWRITE and decision.text.startswith(answer.shown):
        yield from _rewrite(answer, decision, held)
    else:
        if decision.action is Action.REWRITE:
            # The new text contradicts what is out already: too late for it.
            decision = replace(decision, action=Action.BLOCK, text=message)
        yield from _refuse(answer, decision, held, on_block, refuse)


def _release(answer: _Answer, decision: Decision, held: list[Any]) -> Iterator[_Step]:
    if not answer.grows:
        whole = answer.joined()
        yield _Emit(recorded(whole, decision) if isinstance(whole, BaseMessage) else whole)
        return
    *before, last = held
    yield from map(_Emit, before)
    yield _Emit(recorded(last, decision) if isinstance(last, BaseMessage) else last)


def _rewrite(answer: _Answer, decision: Decision, held: list[Any]) -> Iterator[_Step]:
    rest = replace(decision, text=decision.text.removeprefix(answer.shown))
    # What was let out keeps its metadata and counts; the rest stands for all that is held.
    like = joined(held) if answer.grows else answer.joined()
    if isinstance(like, str):
        yield _Emit(rest.text)
    elif isinstance(like, BaseMessage):
        yield _Emit(with_text(like, rest))
    else:
        raise ContentBlockedError(decision)


def _refuse(
    answer: _Answer, decision: Decision, held: list[Any], on_block: OnBlock, refuse: Refuse
) -> Iterator[_Step]:
    if decision.blocked and on_block == "raise":
        raise ContentBlockedError(decision)
    like = joined(held) if answer.grows and held else answer.joined()
    refusal = refuse(decision, like)
    if answer.shown and answer.grows:
        yield _Emit(_paragraph(like))
    yield _Emit(refusal)


def _paragraph(like: Any) -> Any:
    """Make what sets the refusal apart from the part of the answer that is out already."""
    return "\n\n" if isinstance(like, str) else AIMessageChunk(content="\n\n", id=like.id)
