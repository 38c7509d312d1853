"""Markers of a guard's prompt inside user text: readable still, but no longer markers.

A prompt such as Llama Guard's is plain text: whoever writes `<END CONVERSATION>` or a line that
begins with `Agent:` could end the conversation or speak for another. Control tokens need no help
here: the tokenizer keeps them out (`engines/tokens.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from langchain_safeguard.guards.look_alikes import INVISIBLE, spelled

_ENDS = r"\r\v\f\x85\u2028\u2029"
"""What ends a line besides a line break."""
_LINE_BEGIN = rf"(?:^|(?<=[{_ENDS}]))"
"""Where a line begins, whatever ended the one before it."""
_BLANKS = rf"[^\S\n{_ENDS}]*"
"""White space within a line; with line ends among it, a text of nothing else takes for ever."""
_BLANKS_OR_NOTHING = rf"(?:[^\S\n{_ENDS}]|[{INVISIBLE}])*"
"""The same, and what shows nothing."""


def defuse(text: str, markers: Sequence[str], speakers: Sequence[str] = ()) -> str:
    """Put a space into each marker, after its first letter, and before the colon of a speaker.

    Args:
        text: What a user or a model wrote.
        markers: Markers, matched without regard to case and to the width of white space.
        speakers: Words that begin a turn when a colon follows them at the beginning of a line.
    """
    pattern = _pattern(tuple(markers), tuple(speakers), text.isascii())
    return text if pattern is None else pattern.sub(_apart, text)


@lru_cache(maxsize=64)
def _pattern(
    markers: tuple[str, ...], speakers: tuple[str, ...], ascii_only: bool
) -> re.Pattern[str] | None:
    """Return what finds markers; among ASCII characters only it has less to look for."""
    spell: Callable[[str], str] = re.escape
    blanks, gap, colon = _BLANKS, r"\s+", ":"
    if not ascii_only:
        spell, blanks, gap = spelled, _BLANKS_OR_NOTHING, rf"(?:\s|[{INVISIBLE}])+"
        colon = spelled(":")

    def words(text: str) -> str:
        return gap.join(map(spell, text.split()))

    parts = []
    if markers:
        longest_first = sorted(markers, key=len, reverse=True)
        parts.append(f"(?P<marker>{'|'.join(map(words, longest_first))})")
    if speakers:
        who = "|".join(map(words, speakers))
        parts.append(rf"(?P<speaker>{_LINE_BEGIN}{blanks}(?:{who}))(?={blanks}{colon})")
    return re.compile("|".join(parts), re.IGNORECASE | re.MULTILINE) if parts else None


def _apart(match: re.Match[str]) -> str:
    found = match.group()
    groups = match.groupdict()
    if groups.get("speaker") is not None:
        return f"{found} "
    return f"{found[0]} {found[1:]}"
