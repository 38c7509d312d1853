"""Results of tools that wait for a person's decision.

A handler that asks a person interrupts the run, and LangGraph begins the step anew when the run
goes on. The tool must not: what it did cannot be done twice. So its result is held here meanwhile,
in this process only; it is nowhere where somebody could read it before it is decided about.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import RunnableConfig

_MOST = 1024


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of running a tool: a result, or the error it raised."""

    result: Any = None
    failure: Exception | None = None


class HeldResults:
    """Holds the last thousand or so outcomes."""

    def __init__(self) -> None:
        """Begin with none."""
        self._lock = threading.Lock()
        self._results: OrderedDict[Hashable, Outcome] = OrderedDict()

    def hold(self, key: Hashable, outcome: Outcome) -> None:
        """Hold one; without a key it cannot be asked for again."""
        if key is None:
            return
        with self._lock:
            self._results[key] = outcome
            while len(self._results) > _MOST:
                self._results.popitem(last=False)

    def take(self, key: Hashable) -> Outcome | None:
        """Return it, if there is one, and forget it."""
        with self._lock:
            return self._results.pop(key, None)


def key_of(config: RunnableConfig, name: str, call_id: str | None) -> Hashable:
    """Return what is the same for a call when an interrupted run goes on, and for no other call."""
    place = config.get("configurable", {})
    thread, step = place.get("thread_id"), place.get("checkpoint_ns")
    if thread is None or step is None or call_id is None:
        return None
    return (thread, step, name, call_id)
