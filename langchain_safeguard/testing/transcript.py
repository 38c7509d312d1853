"""What one channel carried, put back together so that a secret split over chunks is found."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from langchain_safeguard.testing.matching import SecretFinder
from langchain_safeguard.testing.report import ChannelReport, Leak
from langchain_safeguard.testing.walking import leaves

Lane = tuple[str, str, str, str]
"""Attempt, kind, run, place: texts of one lane are read one after the other."""


class ChannelUnavailableError(Exception):
    """This runnable has no such channel; the text says why. The channel is skipped."""


class Transcript:
    """Collects everything a channel hands out and looks for the secret at the end."""

    def __init__(self, name: str, finder: SecretFinder, expected: SecretFinder | None) -> None:
        """Start empty.

        Args:
            name: The channel's name.
            finder: Finds the secret.
            expected: Finds a text that must appear, or `None`.
        """
        self.name = name
        self.items = 0
        self.exceptions: list[BaseException] = []
        self.refusals: list[str] = []
        self.attempts: list[Attempt] = []
        self.problems: list[str] = []
        self.expected_seen = False
        self._finder = finder
        self._expected = expected
        self._lanes: dict[Lane, list[str]] = defaultdict(list)
        self._leaks: set[Leak] = set()

    @contextmanager
    def attempt(self, label: str) -> Iterator[Attempt]:
        """Run the app once. An exception ends the attempt, is looked at, and goes no further."""
        attempt = Attempt(self, label)
        self.attempts.append(attempt)
        try:
            yield attempt
        except ChannelUnavailableError:
            raise
        except Exception as error:  # whatever the app raises is evidence
            attempt.see_error(error)

    @property
    def failures(self) -> int:
        """How many attempts ended in an exception or its like."""
        return sum(each.failed for each in self.attempts)

    @property
    def answered(self) -> bool:
        """Whether any attempt carried something and was not cut short by an exception."""
        return any(each.items and not each.failed for each in self.attempts)

    def see(self, label: str, kind: str, value: object, source: str, run: str) -> None:
        """Take one thing apart and note its texts."""
        self.items += 1
        for path, text, joins in leaves(value):
            where = " ".join(filter(None, (source, path or "value")))
            if not isinstance(text, str):
                if self._finder.equals(text):
                    self._leaks.add(Leak(self.name, kind, where, label))
            elif joins:
                # By run, which keeps concurrent senders apart, and over all runs, since some
                # senders give every chunk a run or message id of its own.
                for lane in {run, ""}:
                    self._lanes[label, kind, lane, where].append(text)
            else:
                self._search(text, label, kind, where)

    def see_error(self, label: str, error: BaseException) -> None:
        """Look at an exception of the app: its text is read by somebody, too."""
        items = self.items
        self.see(label, "exception", error, "", "")
        # An exception is not something the channel carried: see `Channel.speaks`.
        self.items = items
        self.exceptions.append(error)

    def _search(self, text: str, label: str, kind: str, where: str) -> None:
        if self._finder.found_in(text):
            self._leaks.add(Leak(self.name, kind, where, label))
        if self._expected and not self.expected_seen:
            self.expected_seen = self._expected.found_in(text)

    def close(self) -> ChannelReport:
        """Search the joined texts and give the account of this channel."""
        for (label, kind, _, where), texts in self._lanes.items():
            self._search("".join(texts), label, kind, where)
        errors = [*map(_describe, self.exceptions), *self.refusals]
        return ChannelReport(
            self.name, self.items, _counted(errors), sorted(self._leaks), self.problems
        )


class Attempt:
    """One run of the app on a channel; callable with what the run hands out."""

    def __init__(self, transcript: Transcript, label: str) -> None:
        """Belong to a transcript under a label that says how the app was called."""
        self._transcript = transcript
        self._label = label
        self.items = 0
        self.failed = False

    def __call__(self, kind: str, value: object, *, source: str = "", run: str = "") -> None:
        """Note one thing.

        Args:
            kind: What carried it, e.g. the event's name.
            value: The thing itself, of any type.
            source: Who sent it, e.g. the name of the model. Part of the report.
            run: Keeps texts of concurrent senders apart where they are joined.
        """
        if isinstance(value, BaseException):
            self.see_error(value)
        else:
            self.items += 1
            self._transcript.see(self._label, kind, value, source, run)

    def see_error(self, error: BaseException) -> None:
        """Note an exception."""
        self.failed = True
        self._transcript.see_error(self._label, error)

    def see_refusal(self, what: str) -> None:
        """Note that the app failed behind a border that hides the exception, e.g. HTTP 500."""
        self.failed = True
        self._transcript.refusals.append(what)

    def problem(self, what: str) -> None:
        """Note that this attempt proves nothing."""
        self._transcript.problems.append(what)


def ran_dry(error: BaseException) -> bool:
    """Whether an exception says that a fake model has no answers left.

    Later channels would then look clean because there is nothing left to leak.
    """
    seen: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in seen:
        if isinstance(at, StopIteration | StopAsyncIteration) or "StopIteration" in str(at):
            return True
        seen.append(at)
        at = at.__cause__ or at.__context__
    return False


def _describe(error: BaseException) -> str:
    return type(error).__name__


def _counted(errors: list[str]) -> list[str]:
    return [f"{each} ({errors.count(each)}x)" for each in dict.fromkeys(errors)]
