"""Cut a long text into overlapping windows that leave nothing out.

A text longer than a window is never shortened: every token is in some window, and whatever is no
longer than the overlap is whole in at least one of them.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

# Up to the blank, and not beyond: a SentencePiece token begins with the blank in front of it.
_SENTENCE_END = re.compile(r"[.!?。！？…]+[\"')\]]*(?=\s)|(?=\n)")


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens `first` to `last` (exclusive) of a text, which are its characters `start` to `end`.

    Characters are counted in the text that was cut into tokens: the normalised one.
    """

    first: int
    last: int
    start: int
    end: int


def spans(count: int, size: int, overlap: int) -> list[tuple[int, int]]:
    """Cover `count` tokens with windows of at most `size`, neighbours sharing `overlap`.

    The last window is moved back to be full, so that the end of a text is judged with as much
    around it as any other part.

    Args:
        count: Number of tokens; none gives no window.
        size: Longest window in tokens.
        overlap: Tokens that two neighbours share at least; less than `size`.

    Returns:
        First and last (exclusive) token of every window, in order.

    Raises:
        ValueError: `overlap` is negative or not less than `size`.
    """
    if not 0 <= overlap < size:
        msg = f"overlap must be at least 0 and less than size, got overlap={overlap}, size={size}"
        raise ValueError(msg)
    if count <= 0:
        return []
    if count <= size:
        return [(0, count)]
    firsts = [*range(0, count - size, size - overlap), count - size]
    return [(first, first + size) for first in firsts]


def windows(
    offsets: Sequence[tuple[int, int]], length: int, size: int, overlap: int
) -> list[Window]:
    """Cut tokens with the character `offsets` into windows over a text of `length` characters.

    Characters between two tokens belong to the window of the token before them; the first window
    starts at 0 and the last ends at `length`, so no character is outside all windows.
    """
    found = []
    for first, last in spans(len(offsets), size, overlap):
        start = 0 if first == 0 else offsets[first][0]
        end = length if last == len(offsets) else offsets[last][0]
        found.append(Window(first, last, start, max(start, end)))
    return found


def sentences(
    text: str, offsets: Sequence[tuple[int, int]], fewest: int, most: int
) -> list[Window]:
    """Cut a text at the ends of its sentences and lines.

    Args:
        text: The text.
        offsets: The characters of each of its tokens.
        fewest: Shorter sentences, in tokens, are left out.
        most: Longer ones, too: `windows` covers them.
    """
    begins = [begin for begin, _ in offsets]
    ends = [found.end() for found in _SENTENCE_END.finditer(text)]
    cuts = [0, *(bisect_left(begins, end) for end in ends), len(offsets)]
    return [
        Window(first, last, begins[first], begins[last] if last < len(begins) else len(text))
        for first, last in pairwise(cuts)
        if fewest <= last - first <= most
    ]
