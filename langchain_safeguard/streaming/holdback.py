"""The window of a stream: holds chunks back until the text they belong to was checked.

Nothing here knows of guards, models or LangChain. Lengths are counted in estimated tokens, from the
text alone: four ASCII characters, or one and a third of any other (a Hangul syllable, a Chinese
character), count as one token.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

Chunk = TypeVar("Chunk")

_TOKEN = 4
"""Units to a token; an ASCII character is one unit and any other is three."""
_SENTENCE_ENDS = (".", "!", "?", "…", "\n", "。", "！", "？")


class HoldBack(Generic[Chunk]):
    """Holds the chunks of a growing text and says when to check it and what may be shown.

    After a passed check all but the newest `overlap` tokens may be shown: a phrase that has only
    begun to appear at the end of the checked text is then never half shown. Chunks are neither
    split, nor reordered, nor changed.

    Args:
        every: How many new tokens make a check due.
        overlap: How many checked tokens are still held back; `None` means half of `every`.

    Example:
        ```python
        window = HoldBack[str](every=32)
        for chunk in answer:
            if window.push(chunk, chunk) and is_safe(text_so_far):
                show(window.passed())
        if is_safe(whole_text):
            show(window.finished())
        ```
    """

    def __init__(self, *, every: int = 32, overlap: int | None = None) -> None:
        """Store; nothing is held yet."""
        if every < 1:
            raise ValueError(f"every={every!r}; allowed: 1, 2, ...")
        if overlap is not None and overlap < 0:
            raise ValueError(f"overlap={overlap!r}; allowed: 0, 1, ...")
        self._every = every * _TOKEN
        self._overlap = (every // 2 if overlap is None else overlap) * _TOKEN
        # A check at a sentence's end must have something to release beyond the overlap.
        self._least = max(self._every * 3 // 4, min(self._overlap + _TOKEN, self._every))
        self._held: deque[tuple[Chunk, int]] = deque()
        self._length = 0
        self._checked = 0
        self._sealed = False

    def push(self, chunk: Chunk, text: str, *, seal: bool = False) -> bool:
        """Hold a chunk.

        Args:
            chunk: What is held.
            text: What it adds to the text.
            seal: Whether this chunk, and so every later one, may only be shown at the end.

        Returns:
            Whether a check is due.
        """
        self._sealed = self._sealed or seal
        self._length += units(text)
        # Where a chunk ends is what decides about it; a sealed one ends nowhere before the end.
        self._held.append((chunk, -1 if self._sealed else self._length))
        new = self._length - self._checked
        ends = text.rstrip(" \"')]*”’").endswith(_SENTENCE_ENDS)
        return new >= self._every or (ends and new >= self._least)

    def passed(self) -> list[Chunk]:
        """Return what may be shown now that all that was pushed so far has passed a check."""
        self._checked = self._length
        shown: list[Chunk] = []
        while self._held and 0 <= self._held[0][1] <= self._checked - self._overlap:
            shown.append(self._held.popleft()[0])
        return shown

    def finished(self) -> list[Chunk]:
        """Return all that is held, now that the whole text has passed a check."""
        self._checked = self._length
        shown = [chunk for chunk, _ in self._held]
        self._held.clear()
        return shown


def units(text: str) -> int:
    """Estimate the length of a text in quarters of a token; adds up over its pieces."""
    wide = sum(1 for character in text if character > "\x7f")
    return len(text) + 2 * wide
