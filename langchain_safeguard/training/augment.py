"""Variations of a row's text that must not change its label.

Short rows are now and then set among harmless sentences, so that neither length nor a friendly
neighbourhood becomes a reason, and now and then written the way people write in a hurry.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from langchain_safeguard.training.rows import Row

_SHORT = 300
"""Characters below which a row is short enough to be surrounded."""


class Augmenter:
    """Writes a row's text anew for every epoch.

    Args:
        rows: Training rows; the harmless ones among them are the neighbourhood.
        surround: Share of short rows that get harmless sentences around them.
        noise: Share of rows that get changed casing or typing slips.
    """

    def __init__(self, rows: Sequence[Row], surround: float = 0.15, noise: float = 0.06) -> None:
        self._surround = surround
        self._noise = noise
        self._harmless: dict[tuple[bool, bool], list[str]] = {}
        for row in rows:
            if not row.unsafe and len(row.text) < 2 * _SHORT:
                key = (row.korean, row.side == "output")
                self._harmless.setdefault(key, []).append(row.text)

    def text(self, row: Row, rng: random.Random) -> str:
        """The text to train on this time."""
        text = row.text
        if len(text) < _SHORT and rng.random() < self._surround:
            text = self._among(row, text, rng)
        if rng.random() < self._noise:
            text = rng.choice((str.lower, str.upper, str.title, _slips(rng)))(text)
        return text

    def _among(self, row: Row, text: str, rng: random.Random) -> str:
        pool = self._harmless.get((row.korean, row.side == "output"))
        if not pool:
            return text
        joint = rng.choice((" ", "\n", "\n\n", ". "))
        before = [rng.choice(pool) for _ in range(rng.choice((0, 1, 1, 2, 3)))]
        after = [rng.choice(pool) for _ in range(rng.choice((0, 0, 1, 1, 2)))]
        return joint.join([*before, text, *after])


class _slips:
    """Typing slips: letters swapped, doubled or dropped, about one in thirty."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def __call__(self, text: str) -> str:
        letters = list(text)
        for place in range(len(letters) - 1):
            if self._rng.random() > 1 / 30 or not letters[place].isalpha():
                continue
            slip = self._rng.randrange(3)
            if slip == 0:
                letters[place], letters[place + 1] = letters[place + 1], letters[place]
            elif slip == 1:
                letters[place] *= 2
            else:
                letters[place] = ""
        return "".join(letters)
