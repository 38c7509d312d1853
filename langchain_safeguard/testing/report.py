"""What a leak test saw: leaks, silent channels, skipped channels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, order=True)
class Leak:
    """One place where the secret came out.

    Attributes:
        channel: Name of the channel, e.g. `astream_events_v2`.
        kind: What carried it: an event (`on_chat_model_stream`), a callback hook, `result`,
            `chunk`, `exception`, a logger, ...
        where: Who sent it and the place inside, e.g. `FakeModel data.chunk.text`.
        during: How the app was called, e.g. `ainvoke`.
    """

    channel: str
    kind: str
    where: str
    during: str


@dataclass
class ChannelReport:
    """What one channel carried.

    Attributes:
        name: Name of the channel.
        items: How many things were looked at: results, chunks, events, calls of hooks, records.
        errors: One line per attempt that ended in an exception. The exception's type only, since
            its text may hold what must not be shown.
        leaks: Where the secret was seen.
        problems: Why the channel, for all that, proves nothing; any entry fails the test.
    """

    name: str
    items: int = 0
    errors: list[str] = field(default_factory=list)
    leaks: list[Leak] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass
class LeakReport:
    """The outcome of `assert_no_leak`.

    Attributes:
        channels: What ran, by name, in the order it ran.
        skipped: What did not run, by name, and why.
        problems: Why the test as a whole proves nothing; any entry fails it.
    """

    channels: dict[str, ChannelReport] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def leaks(self) -> list[Leak]:
        """Every place where the secret was seen."""
        return [leak for channel in self.channels.values() for leak in channel.leaks]

    @property
    def leaking(self) -> set[str]:
        """Names of the channels the secret came out of."""
        return {leak.channel for leak in self.leaks}

    @property
    def items(self) -> dict[str, int]:
        """How many things were looked at on each channel that ran."""
        return {name: channel.items for name, channel in self.channels.items()}

    @property
    def errors(self) -> dict[str, list[str]]:
        """The channels on which the app raised, and what."""
        return {name: each.errors for name, each in self.channels.items() if each.errors}

    @property
    def failed(self) -> bool:
        """Whether the test must fail: a leak, or a check that could not have seen one."""
        return bool(self.leaks or self.all_problems)

    @property
    def all_problems(self) -> list[str]:
        """Why the test proves nothing, for the whole and per channel."""
        own = [f"{c.name}: {text}" for c in self.channels.values() for text in c.problems]
        return [*self.problems, *own]

    def __str__(self) -> str:
        """A readable account, leaks first."""
        lines: list[str] = []
        if self.leaks:
            lines.append(f"the secret leaked on {len(self.leaking)} channel(s):")
            lines += _indent(_grouped(self.leaks))
        if self.all_problems:
            lines.append("the test could not have seen a leak:")
            lines += _indent(self.all_problems)
        lines.append("channels run (things looked at):")
        lines += _indent([", ".join(f"{name} {count}" for name, count in self.items.items())])
        if self.errors:
            lines.append("raised:")
            lines += _indent(f"{name}: {', '.join(each)}" for name, each in self.errors.items())
        if self.skipped:
            lines.append("skipped:")
            lines += _indent(f"{name}: {reason}" for name, reason in self.skipped.items())
        return "\n".join(lines)


class LeakError(AssertionError):
    """`assert_no_leak` failed.

    Attributes:
        report: Everything that was seen, for tests that look closer.
    """

    def __init__(self, report: LeakReport) -> None:
        """Describe the report."""
        super().__init__(str(report))
        self.report = report


def _grouped(leaks: Iterable[Leak]) -> Iterable[str]:
    """One line per channel and kind: an event holds the same text in several places."""
    groups: dict[tuple[str, str], list[Leak]] = {}
    for leak in leaks:
        groups.setdefault((leak.channel, leak.kind), []).append(leak)
    for (channel, kind), group in groups.items():
        places = list(dict.fromkeys(leak.where for leak in group))
        calls = list(dict.fromkeys(leak.during for leak in group))
        yield f"{channel}: {kind}: {_shortly(places, 1)} (during {_shortly(calls, 4)})"


def _shortly(texts: list[str], most: int) -> str:
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def _indent(lines: Iterable[object]) -> list[str]:
    return [f"  {line}" for line in lines]
