"""The list of a LangGraph task's answers while the task runs: what is asked, and by whom."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from langchain_safeguard.errors import EscalationError
from langchain_safeguard.holding.entries import Entry, Question, read
from langchain_safeguard.taxonomy import Side

_RESUME = "__resume__"
lock = threading.RLock()
"""Held while such a list is looked at or changed: what is done at once may run in threads."""


class BusyError(EscalationError):
    """Another question of the same task is just being asked; never leaves the library.

    LangGraph takes one question of a task at a time: the other one is asked when the run goes on.

    Attributes:
        interrupt: What interrupts the task for that one; `None` if nothing does in the end.
    """

    def __init__(self, interrupt: Future[Exception | None]) -> None:
        """Store."""
        super().__init__("another question is being asked")
        self.interrupt = interrupt


class Answers:
    """The list of a task's answers, and how far this run of the task has come in it.

    Called, it numbers the task's own interrupts, as LangGraph's counter does.

    Args:
        scratchpad: Where LangGraph keeps the list.
        send: Takes the list to be saved.
        used: How many interrupts the task has had in this run already.

    Attributes:
        resumed: Whether the task was interrupted before this run of it.
        done: The keys of what is known to have been done.
        asking: Who interrupts this run of the task, if somebody does.
        left: Whether the task has interrupted itself.
    """

    def __init__(self, scratchpad: Any, send: Callable[[Any], Any], used: int) -> None:
        """Read the list."""
        self._list: list[Any] = scratchpad.resume
        self._scratchpad = scratchpad
        self._send = send
        self._entries = read(self._list, used)
        self.resumed = bool(self._list)
        self.done = {key for entry in self._entries for key in entry.done}
        self.asking: Asker | None = None
        self.left = False
        if self._is_open() and (given := scratchpad.get_null_resume(True)) is not None:
            # It came without the id of a question, so it is to the only one that was open.
            self._entries[-1].answers.append(given)
            self.save()

    def __call__(self) -> int:
        """Return the number of an interrupt of the task itself."""
        self.stop()
        with lock:
            self._heed()
            at = 0
            for entry in self._entries:
                if not entry.ours and not entry.taken:
                    entry.taken = True
                    return at
                at += len(entry.written())
            self._close()
            self.save()
            self.left = not _unclaimed(self._scratchpad)
            return len(self._list)

    @property
    def interrupted(self) -> bool:
        """Tell whether something interrupts this run of the task."""
        return self.asking is not None or self.left

    @property
    def ended(self) -> bool:
        """Tell whether no answer is left for the task itself: its next interrupt ends the run."""
        with lock:
            self._heed()
            left = any(not (entry.ours or entry.taken) for entry in self._entries)
            return not (left or _unclaimed(self._scratchpad))

    def stop(self) -> None:
        """Raise what interrupts this run of the task, if something does."""
        asking = self.asking
        if asking is not None and (interrupt := outcome(asking.interrupt)) is not None:
            raise interrupt

    def find(self, owner: str, side: Side, whole: str) -> Entry | None:
        """Return the next question about a text, which is then taken."""
        with lock:
            for entry in self._entries:
                if entry.taken or entry.question is None:
                    continue
                asked = entry.question
                if (asked.owner, asked.side, asked.whole) == (owner, side, whole):
                    entry.taken = True
                    return entry
        return None

    def last(self, entry: Entry) -> None:
        """Put an entry at the end of the list, where LangGraph puts the next answer.

        Raises:
            EscalationError: An answer waits there for an interrupt of the task itself.
        """
        self._heed()
        if _unclaimed(self._scratchpad):
            raise EscalationError("the answer at hand is one to another question")
        if entry in self._entries:
            self._entries.remove(entry)
        self._close()
        self._entries.append(entry)

    def note(self, key: str) -> None:
        """Mark that something was done."""
        with lock:
            self._heed()
            if key in self.done:
                return
            self.done.add(key)
            if not self.interrupted:
                self._close()
                last = self._entries[-1] if self._entries else None
                if last is None or not last.ours or last.question is not None:
                    self._entries.append(Entry(ours=True, taken=True))
            # Once something is asked, at a mark that is there: the id of its interrupt counts them.
            for mark in [entry for entry in self._entries if entry.ours][-1:]:
                mark.done.append(key)
            self.save()

    def place(self, entry: Entry) -> int:
        """Return where in the list an entry begins."""
        before = self._entries[: self._entries.index(entry)]
        return sum(len(each.written()) for each in before)

    def save(self) -> None:
        """Write the list."""
        self._list[:] = [item for entry in self._entries for item in entry.written()]
        self._send([(_RESUME, [*self._list])])

    def send(self, writes: Sequence[tuple[str, Any]]) -> None:
        """Take what a handler writes: LangGraph saves only what stands in front of an interrupt."""
        with lock:
            if any(channel == _RESUME for channel, _ in writes):
                self.save()
            else:
                self._send(writes)

    def withdraw(self, entry: Entry) -> None:
        """Take a question back that nobody has answered."""
        entry.times = len(entry.answers)
        if not entry.answers:
            entry.question = None
        if not (entry.answers or entry.done):
            self._entries.remove(entry)
        self.save()

    def _heed(self) -> None:
        """Take note of answers that LangGraph has given to the task itself."""
        known = sum(len(entry.written()) for entry in self._entries)
        for given in self._list[known:]:
            self._entries.append(Entry(ours=False, answers=[given], taken=True))

    def _is_open(self) -> bool:
        last = self._entries[-1] if self._entries else None
        return last is not None and last.ours and len(last.answers) < last.times

    def _close(self) -> None:
        """Let the next answer be to what comes now, and not to what was asked last."""
        if self._is_open():
            self.withdraw(self._entries[-1])


class Asker:
    """Numbers the interrupts of a handler that is asked one question.

    Args:
        answers: The list of the task.
        question: What it is asked.
        before: Gives the entry of a question that was asked before about the same text.

    Attributes:
        entry: That of the question; `None` until the handler interrupts the run.
        interrupt: What it interrupts the task with, if it does; done when this is known.
    """

    def __init__(
        self, answers: Answers, question: Question, before: Callable[[], Entry | None]
    ) -> None:
        """Store."""
        self._answers = answers
        self._question = question
        self._before = before
        self._given = 0
        self._over = False
        self.entry: Entry | None = None
        self.interrupt: Future[Exception | None] = Future()
        # So that nobody who waits for it can cancel it.
        self.interrupt.set_running_or_notify_cancel()

    def __call__(self) -> int:
        """Return the number of the handler's next interrupt.

        Raises:
            EscalationError: It cannot be asked now.
        """
        with lock:
            entry, number = self._found(), self._given
            if entry is not None and number < len(entry.answers):
                self._given += 1
            else:
                entry = self.begin()
                entry.times = number + 1
            self._answers.save()
            return self._answers.place(entry) + 1 + number

    def begin(self) -> Entry:
        """Set the mark, if it is not set, where LangGraph puts the next answer.

        Raises:
            BusyError: Another question is being asked.
            EscalationError: It cannot be asked now.
        """
        with lock:
            if self._over:
                raise EscalationError("the handler asks when nobody waits for it any more")
            entry, asking = self._found(), self._answers.asking
            if asking is not None and asking is not self:
                raise BusyError(asking.interrupt)
            if self._answers.left:
                raise EscalationError("the step has just asked a question of its own")
            if entry is None:
                entry = Entry(ours=True, question=self._question, taken=True)
            if asking is None:
                self._answers.last(entry)
            self.entry, self._answers.asking = entry, self
            return entry

    def end(self, interrupt: Exception | None = None) -> None:
        """Note that the handler is done, and whether its question interrupts the task."""
        with lock:
            self._over = True
            if self._answers.asking is not self or self.interrupt.done():
                return
            if interrupt is None:
                # It has caught its own interrupt, or what is asked about cannot be held.
                assert self.entry is not None
                self._answers.withdraw(self.entry)
                self._answers.asking = None
            self.interrupt.set_result(interrupt)

    def _found(self) -> Entry | None:
        if self.entry is None:
            entry = self._before()
            self.entry = entry if entry is not None and entry.question == self._question else None
        return self.entry


def outcome(interrupt: Future[Exception | None]) -> Exception | None:
    """Wait for what interrupts a task, if anything does.

    Raises:
        EscalationError: It cannot be waited for here.
    """
    if not interrupt.done():
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return interrupt.result()
        raise EscalationError(
            "another question of this step is being asked; in async code, use the async methods"
        )
    return interrupt.result()


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
