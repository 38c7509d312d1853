"""The entries of a LangGraph task's list of answers: which of them belong to which question.

LangGraph counts the interrupts of a task and gives the n-th answer to the n-th one when it runs the
task again. If the task then does something else (a model answers anew, a guard judges differently,
or several things are done at once and come in another order), an answer meets a question that
nobody was asked. So each question of ours stands as a mark in the list of answers, which the
checkpointer saves, in front of its own answers. It tells what was asked, by digests; an answer
without the right mark in front of it is not taken. What stands behind no mark are the answers to
interrupts of the task itself, which get them in their order.

A mark also tells what was done by then. If that is gone when the run goes on, this is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from langchain_safeguard.taxonomy import Side

_MARK, _TIMES, _DONE = "safeguard_question", "asked", "done"


@dataclass(frozen=True, slots=True)
class Question:
    """What a person is asked, without any of its words.

    Attributes:
        owner: Who asks, where several judge the same text.
        side: The side that is judged.
        whole: The digest of the conversation with the text in question.
        decision_id: That of the decision in question.
    """

    owner: str
    side: Side
    whole: str
    decision_id: str


@dataclass(slots=True, eq=False)
class Entry:
    """A mark with the answers behind it, or one answer to an interrupt of the task itself.

    Attributes:
        ours: Whether there is a mark.
        question: What was asked; `None` where a mark only tells what was done.
        times: How often the handler has interrupted the run for it.
        answers: What was answered.
        done: The keys of what was done by then.
        taken: Whether this run of the task has come to it.
    """

    ours: bool
    question: Question | None = None
    times: int = 0
    answers: list[Any] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    taken: bool = False

    @classmethod
    def of(cls, item: Any) -> Entry:
        """Read an item of the list."""
        if not isinstance(item, dict) or set(item) != {_MARK, _TIMES, _DONE}:
            return cls(ours=False, answers=[item])
        asked = item[_MARK]
        question = None if asked is None else Question(**asked)
        return cls(ours=True, question=question, times=item[_TIMES], done=[*item[_DONE]])

    def written(self) -> list[Any]:
        """Return what stands in the list for it."""
        if not self.ours:
            return self.answers
        asked = None if self.question is None else asdict(self.question)
        # New ones each time: LangGraph may have saved the old ones, or be about to.
        return [{_MARK: asked, _TIMES: self.times, _DONE: [*self.done]}, *self.answers]


def read(items: Sequence[Any], used: int) -> list[Entry]:
    """Read a list.

    Args:
        items: The list.
        used: How many of its items the task has come to already.
    """
    entries: list[Entry] = []
    rest = [*items]
    while rest:
        entry = Entry.of(rest.pop(0))
        entry.taken = len(items) - len(rest) <= used
        if entry.ours:
            entry.answers, rest = rest[: entry.times], rest[entry.times :]
        entries.append(entry)
    return entries
