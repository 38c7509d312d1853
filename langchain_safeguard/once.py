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
            holds it any more.
    """

    def __init__(self, made: MutableMapping[object, Any]) -> None:
        """Store."""
        self._lock = threading.Lock()
        self._locks: MutableMapping[object, threading.Lock] = WeakValueDictionary()
        self._made = made

    def get(self, key: object, make: Callable[[], T]) -> T:
        """Return the thing of a key; if it is not there, or not any more, make it."""
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            made: T | None = self._made.get(key)
            if made is None:
                made = self._made[key] = make()
            return made
