"""Spellings that a reader, and a model, takes for plain ASCII: full-width, styled, invisible."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Mapping
from functools import cache

_TAGS = 0xE0000
"""Where invisible twins of the ASCII characters begin, which only a model reads."""
INVISIBLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb"
    "\U000e0000-\U000e0020\U000e007f-\U000e0fff"
)
"""Characters that show nothing, for a set in a pattern."""


def spelled(word: str) -> str:
    """Return a pattern for a word of ASCII in all spellings that look like it.

    Characters that show nothing may stand between its letters. A letter stands for itself in both
    cases only where the pattern ignores case.
    """
    twins = _twins()
    letters = (f"[{re.escape(letter)}{twins.get(letter.lower(), '')}]" for letter in word)
    return f"[{INVISIBLE}]*".join(letters)


@cache
def _twins() -> Mapping[str, str]:
    """Return, for each character of ASCII in lower case, others that look like it."""
    found: dict[str, str] = {}
    for code in range(0x80, sys.maxunicode + 1):
        twin = chr(code)
        if 0x20 < code - _TAGS < 0x7F:
            plain = chr(code - _TAGS)
        elif unicodedata.decomposition(twin).startswith("<"):
            plain = unicodedata.normalize("NFKC", twin)
        else:
            continue
        if len(plain) == 1 and plain.isascii() and not plain.isspace():
            found[plain.lower()] = found.get(plain.lower(), "") + twin
    return found
