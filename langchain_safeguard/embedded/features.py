"""Hashed n-grams of characters and words, computed with `numpy` alone.

Rolling polynomial hashes modulo 2**64 give every n-gram of a text in a handful of vector
operations: no strings are cut, so a window costs a fraction of a millisecond. Korean needs nothing
special: its characters are syllables, and short n-grams of them are its best features.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CHARACTER_ORDERS = (1, 2, 3, 4, 5)
WORD_ORDERS = (1, 2, 3)

_BASE = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xD6E8FEB86659FD93)
_SPACE = 32
_PROMPT_SEED = 0x51ED27
"""Features of the prompt live apart from those of the text."""

Codes = NDArray[np.uint64]


def buckets(
    text: str, prompt: str | None, bits: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Bucket numbers and weights of the n-grams of `text`, and of `prompt` when there is one.

    Args:
        text: Normalised text of a window.
        prompt: Normalised prompt that `text` answers.
        bits: There are `2 ** bits` buckets.

    Returns:
        Distinct bucket numbers, int64, and `1 + log(count)` of each, float32; both of one length.
    """
    hashes = _hashes(_codes(text), seed=1)
    if prompt is not None:
        hashes = np.concatenate([hashes, _hashes(_codes(prompt), seed=_PROMPT_SEED)])
    hashes = (hashes ^ (hashes >> np.uint64(32))) * _MIX
    found, counts = np.unique(hashes >> np.uint64(64 - bits), return_counts=True)
    return found.astype(np.int64), (1.0 + np.log(counts)).astype(np.float32)


def _codes(text: str) -> Codes:
    """Code points of the lower-cased text between two spaces, runs of white space as one."""
    folded = " " + " ".join(text.lower().split()) + " "
    return np.frombuffer(folded.encode("utf-32-le", "replace"), dtype=np.uint32).astype(np.uint64)


def _hashes(codes: Codes, seed: int) -> Codes:
    found = [_character_grams(codes, seed), _word_grams(codes, seed)]
    return np.concatenate([part for parts in found for part in parts])


def _character_grams(codes: Codes, seed: int) -> list[Codes]:
    grams, rolling = [], np.zeros(len(codes), dtype=np.uint64)
    for order in range(1, max(CHARACTER_ORDERS) + 1):
        if len(codes) < order:
            break
        rolling = rolling[: len(codes) - order + 1] * _BASE + codes[order - 1 :]
        if order in CHARACTER_ORDERS:
            grams.append(rolling * _MIX + np.uint64(seed * 16 + order))
    return grams


def _word_grams(codes: Codes, seed: int) -> list[Codes]:
    """Hashes of words by prefix hashing: hash of a slice = H[end] - H[start] * base**length."""
    edges = np.flatnonzero(codes == _SPACE)
    if len(edges) < 2:
        return []
    # Summing code * base**place and dividing by the power of the start is the same hash, but
    # division does not exist here; a word's sum is instead taken with powers of its own places.
    starts = edges[:-1] + 1
    place = np.arange(len(codes)) - np.repeat(
        np.concatenate([[0], starts]), np.diff(np.concatenate([[0], starts, [len(codes)]]))
    )
    terms = codes * _powers(int(place.max()) + 1)[place]
    words = np.add.reduceat(np.where(codes == _SPACE, np.uint64(0), terms), starts)
    grams, rolling = [], np.zeros(len(words), dtype=np.uint64)
    for order in range(1, max(WORD_ORDERS) + 1):
        if len(words) < order:
            break
        rolling = rolling[: len(words) - order + 1] * _BASE + words[order - 1 :]
        if order in WORD_ORDERS:
            grams.append(rolling * _MIX + np.uint64(seed * 16 + 8 + order))
    return grams


def _powers(count: int) -> Codes:
    return np.cumprod(np.concatenate([[np.uint64(1)], np.full(count - 1, _BASE)]), dtype=np.uint64)
