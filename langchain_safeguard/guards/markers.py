"""Markers of a guard's prompt inside user text: readable still, but no longer markers.

A prompt such as Llama Guard's is plain text: whoever writes `<END CONVERSATION>` or a line that
begins with `Agent:` could end the conversation or speak for another. Control tokens need no help
here: the tokenizer keeps them out (`engines/tokens.py`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

_ENDS = r"\r\v\f\x85\u2028\u2029"
"""What ends a line besides a line break."""
_LINE_BEGIN = rf"(?:^|(?<=[{_ENDS}]))"
"""Where a line begins, whatever ended the one before it."""
_BLANKS = rf"[^\S\n{_ENDS}]*"
"""White space within a line; with line ends among it, a text of nothing else takes for ever."""


def defuse(text: str, markers: Sequence[str], speakers: Sequence[str] = ()) -> str:
    """Put a space into each marker, after its first letter, and before the colon of a speaker.

    Args:
        text: What a user or a model wrote.
        markers: Markers, matched without regard to case and to the width of white space.
        speakers: Words that begin a turn when a colon follows them at the beginning of a line.
    """
    pattern = _pattern(tuple(markers), tuple(speakers))
    return text if pattern is None else pattern.sub(_apart, text)


@lru_cache(maxsize=64)
def _pattern(markers: tuple[str, ...], speakers: tuple[str, ...]) -> re.Pattern[str] | None:
    parts = []
    if markers:
        longest_first = sorted(markers, key=len, reverse=True)
        spelled = (r"\s+".join(map(re.escape, marker.split())) for marker in longest_first)
        parts.append(f"(?P<marker>{'|'.join(spelled)})")
    if speakers:
        words = "|".join(map(re.escape, speakers))
        parts.append(rf"(?P<speaker>{_LINE_BEGIN}{_BLANKS}(?:{words}))(?={_BLANKS}:)")
    return re.compile("|".join(parts), re.IGNORECASE | re.MULTILINE) if parts else None


def _apart(match: re.Match[str]) -> str:
    found = match.group()
    groups = match.groupdict()
    if groups.get("speaker") is not None:
        return f"{found} "
    return f"{found[0]} {found[1:]}"
