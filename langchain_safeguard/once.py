"""Things that are made once per process, however many threads ask for them."""

from __future__ import annotations

import threading
from collections.abc import Callable, MutableMapping
from typing import Any, TypeVar
from weakref import WeakValueDictionary

T = TypeVar("T")


class Once:
    """Makes each thing once, whoever asks; different things at the same time.

    Args:
        made: Where what was made is found again: a `WeakValueDictionary` for what goes when nobody
            holds it any more. What was asked for last stays until something else is made: who asks
            for it again and again, and holds it in between never, does not wait each time.
    """

    def __init__(self, made: MutableMapping[object, Any]) -> None:
        """Store."""
        self._lock = threading.Lock()
        self._locks: MutableMapping[object, threading.Lock] = WeakValueDictionary()
        self._made = made
        self._last: object = None

    def get(self, key: object, make: Callable[[], T]) -> T:
        """Return the thing of a key; if it is not there, or not any more, make it."""
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            made: T | None = self._made.get(key)
            if made is None:
                # Both may not fit into memory.
                self._last = None
                made = self._made[key] = make()
            self._last = made
            return made
