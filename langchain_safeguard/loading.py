"""Guards by name. Each checkpoint is loaded once per process, whoever asks."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from langchain_safeguard.errors import ConfigurationError
from langchain_safeguard.guards.base import Guard
from langchain_safeguard.taxonomy import Side


@dataclass(frozen=True, slots=True)
class GuardCard:
    """What there is to know about a guard before loading it.

    Attributes:
        name: What `load_guard` calls it.
        languages: The languages it was made for.
        sides: The sides it can judge.
        licence: The licence of its weights.
        size: The size of its download.
        note: What else matters when choosing.
    """

    name: str
    languages: tuple[str, ...]
    sides: tuple[Side, ...]
    licence: str
    size: str
    note: str


_CARDS = (
    GuardCard(
        name="embedded",
        languages=("English", "Korean"),
        sides=("input", "output", "tool_input", "tool_output"),
        licence="MIT",
        size="in the package",
        note="the default: a small classifier, milliseconds on a CPU",
    ),
)
_lock = threading.Lock()
_loaded: dict[str, Guard] = {}


def list_guards() -> tuple[GuardCard, ...]:
    """Return what `load_guard` knows by name."""
    return _CARDS


def load_guard(name: str | Path | Guard = "embedded") -> Guard:
    """Load a guard, or return it if it is loaded already.

    Args:
        name: `"embedded"`, or a folder with a checkpoint of the embedded guard (such as the output
            of `python -m langchain_safeguard.training`), or a guard, which is returned as it is.

    Raises:
        ConfigurationError: Nothing is known by that name.
        GuardLoadError: The checkpoint is missing or damaged.
    """
    if isinstance(name, Guard):
        return name
    if not isinstance(name, str | Path):
        raise ConfigurationError(
            f"guard={name!r}; allowed: a Guard, a folder, or one of {_known_names()}"
        )
    folder = None if name == "embedded" else Path(name)
    if folder is not None and not folder.is_dir():
        raise ConfigurationError(
            f"unknown guard {str(name)!r}: neither a folder nor one of {_known_names()}"
        )
    key = str(folder.resolve()) if folder else "embedded"
    with _lock:
        if key not in _loaded:
            # Imported here because torch takes seconds.
            from langchain_safeguard.guards.embedded import EmbeddedGuard

            _loaded[key] = EmbeddedGuard(folder)
        return _loaded[key]


def _known_names() -> str:
    return ", ".join(repr(card.name) for card in _CARDS)
