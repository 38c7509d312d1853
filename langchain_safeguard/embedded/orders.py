"""Does a tool's result give orders to whoever reads it?

An injected instruction is a line or two in a mail, a page or a record, and to the classifier of
whole windows most of them look like any text. So the lines of a tool's result are also judged one
by one, by a linear model of hashed n-grams that knows nothing but this: whether a stretch orders
its reader to act, or speaks as people, pages and programs do. It costs a fraction of a millisecond
a line.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from langchain_safeguard.embedded.features import buckets
from langchain_safeguard.embedded.windows import Window, sentences, windows

_WHOLE_TOKENS = 48
"""A text up to this long is one stretch."""
_STRETCH_TOKENS, _OVERLAP_TOKENS = 32, 14
_SENTENCE_LEAST, _SENTENCE_MOST = 4, 64


def stretches(text: str, offsets: Sequence[tuple[int, int]]) -> list[Window]:
    """Cut a text into what is judged by itself: its sentences and lines, and what spans them.

    Args:
        text: The normalised text.
        offsets: The characters of each of its tokens.
    """
    if len(offsets) <= _WHOLE_TOKENS:
        return windows(offsets, len(text), _WHOLE_TOKENS, 0)
    return [
        *windows(offsets, len(text), _STRETCH_TOKENS, _OVERLAP_TOKENS),
        *sentences(text, offsets, _SENTENCE_LEAST, _SENTENCE_MOST),
    ]


class OrderModel:
    """Two linear models: of hashed n-grams, and of what the word branch makes of a line.

    Args:
        grams: One weight for each bucket, shape (2 ** bits,).
        grams_bias: Added to every logit.
        words: One weight for each feature of the word branch, shape (features,).
        words_bias: Added to every logit.
    """

    def __init__(
        self,
        grams: NDArray[np.float32],
        grams_bias: float,
        words: NDArray[np.float32],
        words_bias: float,
    ) -> None:
        self._grams, self._grams_bias = grams, grams_bias
        self._words, self._words_bias = words, words_bias
        self._bits = len(grams).bit_length() - 1

    def by_grams(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """How sure the n-grams are that each text orders its reader to act: logits (texts,)."""
        return np.array([self._one(text) for text in texts], dtype=np.float32)

    def by_words(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """The same by `features` (texts, features) of the word branch."""
        found: NDArray[np.float32] = features @ self._words + np.float32(self._words_bias)
        return found

    def _one(self, text: str) -> float:
        found, counts = buckets(text, None, self._bits)
        if not len(found):
            return self._grams_bias
        return float(counts @ self._grams[found] / np.linalg.norm(counts)) + self._grams_bias
