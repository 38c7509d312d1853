"""What waits while a person decides about it: answers of models, and results of tools.

A handler that asks a person interrupts the run, and LangGraph begins the step anew when the run
goes on. Neither the model nor the tool may be asked again then: a person's word is about the text
they saw, and what a tool did cannot be done twice. So that text waits here meanwhile, and is in no
state, checkpoint or stream before it is decided about. What else was done in the step waits here,
too.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from langchain_safeguard.errors import ConfigurationError
from langchain_safeguard.verdict import Verdict

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of running a tool: a result, or the error it raised."""

    result: Any = None
    failure: Exception | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """Something that waits.

    Attributes:
        verdicts: Of a question that a person is asked, what the guards saw: they are not asked
            again.
        value: An answer, or the `Outcome` of a tool; `None` for a question.
        waits: Whether somebody is to decide about it, or about something beside it. If not, it may
            go like what is settled.
    """

    verdicts: tuple[Verdict, ...]
    value: Any = None
    waits: bool = True


@runtime_checkable
class HeldStore(Protocol):
    """Where things wait. All of it may be called from many threads at once."""

    def hold(self, key: str, held: Held) -> None:
        """Keep something under a key, which is used again only for the same thing.

        If it waits, it is not to go before it is settled, though what the key had before was.

        Raises:
            Exception: It cannot be kept; then nobody is asked about it, and it is blocked.
        """

    def get(self, key: str) -> Held | None:
        """Return what is kept under a key, or `None` if it is gone."""

    def settle(self, key: str) -> None:
        """Note that it is decided about: it may go, though not at once.

        The run may still fail, or begin the step anew for another question.
        """


class HeldResults:
    """Keeps things in this process; when it ends, they are gone.

    A run whose answer or result is gone goes on with a refusal that says so.

    Args:
        most: How many are kept. Above that, what is decided about goes first; if nothing is, the
            oldest goes, and a warning is logged.

    Raises:
        ConfigurationError: `most` is not a number above 0.
    """

    def __init__(self, most: int = 1024) -> None:
        """Begin with none."""
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            raise ConfigurationError(f"most={most!r}; allowed: 1, 2, ...")
        self._most = most
        self._lock = threading.Lock()
        self._open: OrderedDict[str, Held] = OrderedDict()
        self._settled: OrderedDict[str, Held] = OrderedDict()

    def hold(self, key: str, held: Held) -> None:
        """Keep something under a key."""
        with self._lock:
            self._open.pop(key, None)
            self._settled.pop(key, None)
            (self._open if held.waits else self._settled)[key] = held
            if len(self._open) + len(self._settled) <= self._most:
                return
            lost = not self._settled
            (self._settled or self._open).popitem(last=False)
        if lost:
            logger.warning("more than %d texts wait for a person: the oldest is lost", self._most)

    def get(self, key: str) -> Held | None:
        """Return what is kept under a key, or `None` if it is gone."""
        with self._lock:
            return self._open.get(key) or self._settled.get(key)

    def settle(self, key: str) -> None:
        """Note that it is decided about."""
        with self._lock:
            held = self._open.pop(key, None)
            if held is not None:
                self._settled[key] = held


def store_of(held: object) -> HeldStore:
    """Return a store as it is; one in this process for `None`.

    Raises:
        ConfigurationError: It is no store.
    """
    if held is None:
        return HeldResults()
    if isinstance(held, type) or not isinstance(held, HeldStore):
        raise ConfigurationError(
            f"held: a {type(held).__name__}; allowed: HeldResults(), HeldDatabase(url), or a store "
            "of your own"
        )
    return held
