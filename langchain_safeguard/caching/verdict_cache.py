"""Verdicts that are known already: the same guard is not asked twice about the same text."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeGuard

from langchain_safeguard.errors import ConfigurationError
from langchain_safeguard.threads import in_thread
from langchain_safeguard.verdict import Verdict

logger = logging.getLogger(__name__)

_THREAD = "verdict-store"
_PATIENCE = 1.0
"""The seconds a store may take."""


class VerdictStore(Protocol):
    """Where verdicts are kept beyond one process, behind the memory of a `VerdictCache`.

    It is called from many threads at once, each time in a new one. Whatever it raises, whatever it
    returns that is no sound verdict, and taking longer than a second, means that the guard is
    asked. A call that is not waited for any longer goes on: a store needs time limits of its own.
    """

    def read(self, keys: Sequence[str]) -> Sequence[Verdict | None]:
        """Return what is known for each key, in their order."""

    def write(self, verdicts: Mapping[str, Verdict]) -> None:
        """Keep verdicts by their keys."""


class VerdictCache:
    """Remembers the verdicts of guards, the latest used ones, within a bound.

    Verdicts are kept by hashes of the guard, the side, and what the guard reads of the conversation
    (`Guard.reads`); the texts themselves are not kept. Failed verdicts never are. A policy decides
    anew each time, so one cache serves many. A verdict that comes back is as it was, but for its
    latency, which is 0. A text that stands several times in one batch is judged once.

    An entry of the embedded guard, which scores every category, takes about 2.5 KB; one of a guard
    that names what it finds, about 0.5 KB. It is safe under threads and asyncio.

    Args:
        entries: The most verdicts kept in memory.
        store: Where they are kept besides, to be shared between processes.

    Raises:
        ConfigurationError: A value is wrong; the message names it and what is allowed.

    Example:
        ```python
        cache = VerdictCache(entries=50_000)
        chat, agent = Safeguard(cache=cache), Safeguard(policy="agent.yaml", cache=cache)
        ```
    """

    def __init__(self, entries: int = 4096, store: VerdictStore | None = None) -> None:
        """Start empty."""
        if type(entries) is not int or entries < 1:
            raise ConfigurationError(f"entries={entries!r}; allowed: 1, 2, ...")
        if store is not None and not (
            callable(getattr(store, "read", None)) and callable(getattr(store, "write", None))
        ):
            raise ConfigurationError(
                f"store={store!r}; allowed: an object with read and write, see VerdictStore; None"
            )
        self._most = entries
        self._store = store
        self._kept: OrderedDict[str, Verdict] = OrderedDict()
        self._hits = self._misses = 0
        self._lock = threading.Lock()

    @property
    def is_shared(self) -> bool:
        """Tell whether there is a store, which takes time to ask."""
        return self._store is not None

    @property
    def stats(self) -> dict[str, int]:
        """Return how many verdicts were found (`hits`), and were not (`misses`); and the `entries`.

        Counted since it was made; `entries` is how many are in memory now.
        """
        with self._lock:
            return {"hits": self._hits, "misses": self._misses, "entries": len(self._kept)}

    def find(self, keys: Sequence[str]) -> list[Verdict | None]:
        """Return the verdict for each key, `None` where there is none.

        A key that is asked for several times is missed once: whoever asks learns it then.
        """
        with self._lock:
            found = [self._kept.get(key) for key in keys]
            for key, verdict in zip(keys, found, strict=True):
                if verdict is not None:
                    self._kept.move_to_end(key)
        missing = [key for key, verdict in zip(keys, found, strict=True) if verdict is None]
        if missing and self._store is not None:
            shared = self._read(self._store, missing)
            self._remember(shared)
            found = [v or shared.get(key) for key, v in zip(keys, found, strict=True)]
        misses = len({key for key, verdict in zip(keys, found, strict=True) if verdict is None})
        with self._lock:
            self._hits += len(keys) - misses
            self._misses += misses
        return found

    def keep(self, verdicts: Mapping[str, Verdict]) -> None:
        """Remember verdicts by their keys; failed ones are left out."""
        sound = {key: verdict for key, verdict in verdicts.items() if not verdict.failed}
        self._remember(sound)
        if self._store is None or not sound:
            return
        try:
            store = self._store
            in_thread(lambda: store.write(sound), _THREAD).result(_PATIENCE)
        except Exception as error:
            logger.warning("the verdict store could not be written: %s", type(error).__name__)

    def clear(self) -> None:
        """Forget what is in memory."""
        with self._lock:
            self._kept.clear()

    def __deepcopy__(self, memo: object) -> VerdictCache:
        """Return the cache itself, for copies of chains."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Start empty in another process."""
        return VerdictCache, (self._most, self._store)

    def _remember(self, verdicts: Mapping[str, Verdict]) -> None:
        with self._lock:
            for key, verdict in verdicts.items():
                self._kept[key] = verdict
                self._kept.move_to_end(key)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)

    @staticmethod
    def _read(store: VerdictStore, keys: Sequence[str]) -> dict[str, Verdict]:
        try:
            read = in_thread(lambda: store.read(keys), _THREAD).result(_PATIENCE)
            found = dict(zip(keys, read, strict=True))
        except Exception as error:
            logger.warning("the verdict store could not be read: %s", type(error).__name__)
            return {}
        # Others write to it, too: what is not sound is not known.
        return {key: verdict for key, verdict in found.items() if _is_sound(verdict)}


def _is_sound(verdict: object) -> TypeGuard[Verdict]:
    try:
        return isinstance(verdict, Verdict) and not verdict.failed and verdict.has_sound_scores
    except (AttributeError, TypeError):
        return False
