"""Names for middleware: an agent takes no two of the same name, and remembers them.

A name becomes part of the agent's graph, which a saved run looks up when it goes on. So it must be
the same in the next process, yet differ between two middlewares that do different things. It is
made of the guards' names and the policy's fingerprint. Two guard objects of one name are numbered
in the order in which they are first seen.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Sequence

from langchain_safeguard.guards import Guard
from langchain_safeguard.taxonomy import Side

_lock = threading.Lock()
_seen: dict[str, list[weakref.ref[Guard]]] = {}


def middleware_name(
    base: str, guards: Iterable[Guard | str], fingerprint: str | None, side: Side | None
) -> str:
    """Make a name.

    Args:
        base: How it begins.
        guards: The guards, or their names where they were given by name; none for the default.
        fingerprint: That of the policy, unless it is the default one.
        side: The only side that is checked, if it is only one.
    """
    parts = [guard if isinstance(guard, str) else _numbered(guard) for guard in guards]
    if fingerprint is not None:
        parts.append(fingerprint[:8])
    if side is not None:
        parts.append(side)
    # LangGraph keeps these two for itself.
    inside = ",".join(parts).translate({ord(":"): "-", ord("|"): "-"})
    return f"{base}[{inside}]" if inside else base


def given_guards(given: object, loaded: Sequence[Guard]) -> list[Guard | str]:
    """Return the guards as they were given: a name stands for the same guard in every process."""
    if given is None:
        return []
    several = [*given] if isinstance(given, list | tuple) else [given]
    return [
        guard if isinstance(own, Guard) else guard.name
        for own, guard in zip(several, loaded, strict=True)
    ]


def _numbered(guard: Guard) -> str:
    with _lock:
        alive = [ref for ref in _seen.get(guard.name, []) if ref() is not None]
        _seen[guard.name] = alive
        number = next((at for at, ref in enumerate(alive, 1) if ref() is guard), None)
        if number is None:
            alive.append(weakref.ref(guard))
            number = len(alive)
    return guard.name if number == 1 else f"{guard.name}-{number}"
