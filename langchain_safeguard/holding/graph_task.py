"""Which of a LangGraph task's answers belongs to which question.

LangGraph counts the interrupts of a task and gives the n-th answer to the n-th one when it runs the
task again. If the task then does something else (a model answers anew, a guard judges differently),
an answer meets a question that nobody was asked. So each question of ours stands behind a mark in
the list of answers, which the checkpointer saves with them. It tells what was asked, by digests; an
answer without the right mark in front of it is not taken.

The mark also tells that something was held. If that is gone when the run goes on, this is known.
"""

from __future__ import annotations

import hashlib
import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, is_dataclass, replace
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config

from langchain_safeguard.conversation import Conversation
from langchain_safeguard.errors import EscalationError
from langchain_safeguard.taxonomy import Side

_SCRATCHPAD = "__pregel_scratchpad"
_SEND = "__pregel_send"
_CHECKPOINTER = "__pregel_checkpointer"
_RESUME = "__resume__"
_PUSHED = "__pregel_push"
_MARK = "safeguard_question"
_TIMES = "asked"
_lock = threading.RLock()
"""Held while the number of the next interrupt is looked at: tools of one step run in threads."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a person is asked, without any of its words.

    Attributes:
        owner: Who asks, where several judge the same text.
        side: The side that is judged.
        context: The digest of what led to the text in question.
        whole: The digest of the conversation with it.
        decision_id: That of the decision in question.
    """

    owner: str
    side: Side
    context: str
    whole: str
    decision_id: str


class GraphTask:
    """One task of a LangGraph run that can be interrupted and go on later.

    Args:
        config: A config inside the task.
        scratchpad: Where LangGraph keeps the task's answers.
    """

    def __init__(self, config: RunnableConfig, scratchpad: Any) -> None:
        """Store."""
        self._config = config
        self._scratchpad = scratchpad
        self._place = config["configurable"]

    @classmethod
    def of(cls, config: RunnableConfig) -> GraphTask | None:
        """Find the task; `None` outside of one, or where nothing is saved."""
        place = config.get("configurable", {})
        scratchpad = place.get(_SCRATCHPAD)
        saved = place.get("thread_id") is not None and place.get(_CHECKPOINTER)
        if not saved or not is_dataclass(scratchpad) or _SEND not in place:
            return None
        return cls(config, scratchpad)

    @property
    def sent(self) -> bool:
        """Tell a task for one thing alone, such as one call of a tool, from a step of a graph."""
        return _PUSHED in self._config.get("metadata", {}).get("langgraph_triggers", ())

    def key(self, question: Question) -> str:
        """Return what is the same for a question when the task goes on, and for no other one."""
        facts = (self._place["thread_id"], self._place.get("checkpoint_ns"), question)
        return hashlib.sha256(repr(facts).encode("utf-8", "backslashreplace")).hexdigest()

    @property
    def resumed(self) -> bool:
        """Tell whether the task has been interrupted, and now goes on."""
        return bool(self._scratchpad.resume)

    def question(self, at: int | None = None) -> Question | None:
        """Return the question at a place in the list, at the next one if none is given."""
        answers = self._scratchpad.resume
        at = self._next if at is None else at
        mark = answers[at] if at < len(answers) else None
        if not isinstance(mark, dict) or set(mark) != {_MARK, _TIMES}:
            return None
        try:
            return Question(**mark[_MARK])
        except TypeError:
            return None

    def sought(self, fits: Callable[[Question], bool], *, ahead: bool) -> Question | None:
        """Return the next question if it fits, and be there.

        Args:
            fits: Tells whether it does.
            ahead: Whether to look behind the next place, too, past what a step that will not be run
                again has asked.
        """
        begin = self._next
        for at in range(begin, len(self._scratchpad.resume) if ahead else begin + 1):
            question = self.question(at)
            if question is not None and fits(question):
                self._next = at
                return question
        return None

    def asking(self, question: Question) -> RunnableConfig:
        """Return the config in which to ask: the first interrupt sets the mark, or finds it.

        An interrupt raises `EscalationError` if the next answer is one to something else.
        """
        numbers = self._numbers(question)
        scratchpad = replace(self._scratchpad, interrupt_counter=lambda: next(numbers))
        return {**self._config, "configurable": {**self._place, _SCRATCHPAD: scratchpad}}

    def take_back(self, question: Question) -> None:
        """Remove a mark that was just set."""
        answers = self._scratchpad.resume
        if answers and self.question(len(answers) - 1) == question:
            answers.pop()
            self._send()
            self._next = len(answers)

    def skip(self) -> None:
        """Pass over the next question and its answers: a handler may have asked several times."""
        answers, at = self._scratchpad.resume, self._next
        end = at + 1 + answers[at][_TIMES]
        if len(answers) == end - 1:
            given = self._scratchpad.get_null_resume(True)
            if given is not None:
                answers.append(given)
        self._next = min(end, len(answers))
        self._send()

    def _numbers(self, question: Question) -> Iterator[int]:
        with _lock:
            at = self._begin(question)
        for times in itertools.count(1):
            mark = self._scratchpad.resume[at]
            # A new one: LangGraph may have saved the old one, or be about to.
            self._scratchpad.resume[at] = {**mark, _TIMES: max(times, mark[_TIMES])}
            self._send()
            yield self._scratchpad.interrupt_counter()

    def _begin(self, question: Question) -> int:
        """Set the mark, or find it; return where it stands."""
        answers, at = self._scratchpad.resume, self._next
        if at < len(answers):
            ours = self.question(at) == question
        else:
            ours = at == len(answers) and not _unclaimed(self._scratchpad)
        if not ours:
            raise EscalationError("the answer at hand is one to another question")
        if at == len(answers):
            answers.append({_MARK: asdict(question), _TIMES: 0})
        self._next = at + 1
        return at

    def _send(self) -> None:
        self._place[_SEND]([(_RESUME, [*self._scratchpad.resume])])

    @property
    def _next(self) -> int:
        """The number of the next interrupt; looking at it does not use it up."""
        with _lock:
            number: int = self._scratchpad.interrupt_counter()
            self._next = number
        return number

    @_next.setter
    def _next(self, number: int) -> None:
        self._scratchpad.interrupt_counter._counter = itertools.count(number).__next__


def _unclaimed(scratchpad: Any) -> bool:
    """Tell whether the answer that came without the id of a question is still to be taken.

    `get_null_resume` does not tell: it goes on returning an answer that was taken.
    """
    take = scratchpad.get_null_resume
    if take(False) is None:
        return False
    cells = [cell.cell_contents for cell in take.__closure__ or ()]
    inside = dict(zip(take.__code__.co_freevars, cells, strict=True))
    own, around = inside.get("null_resume_write"), inside.get("parent_scratchpad")
    if own is None:
        return around is None or _unclaimed(around)
    return any(write is own for write in inside.get("pending_writes", [own]))


def digest(conversation: Conversation, side: Side, *, context: bool = False) -> str:
    """Return what tells a conversation from others, or what leads to its judged part."""
    turns = conversation.context(side) if context else conversation.turns
    facts = [(turn.role, turn.text, turn.unchecked) for turn in turns]
    return hashlib.sha256(repr(facts).encode("utf-8", "backslashreplace")).hexdigest()[:24]


def resumed(config: RunnableConfig) -> bool:
    """Tell whether this is inside of a task that has been interrupted, and now goes on."""
    task = GraphTask.of(ensure_config(config))
    return task is not None and task.resumed


def is_control_flow(error: BaseException) -> bool:
    """Tell LangGraph's interrupts and commands, which are exceptions, from failures."""
    errors = sys.modules.get("langgraph.errors")
    return errors is not None and isinstance(error, errors.GraphBubbleUp)
