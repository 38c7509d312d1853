"""Rows to token ids of bounded length.

Training sees at most `limit` tokens of a text. A longer harmless text is cut to a random window;
a longer unsafe one keeps its beginning and its end, because a random window of it may be harmless
and would be learned with the wrong label.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Protocol

from tokenizers import Tokenizer
from torch import Tensor

from langchain_safeguard.embedded.batches import Example, phrase_batch, word_batch

__all__ = ["Batcher", "Example", "ids_of", "phrase_batch", "shorten", "word_batch"]


class Batcher(Protocol):
    """Turns examples into the keyword arguments of a branch's `forward`."""

    def __call__(self, examples: Sequence[Example]) -> Mapping[str, Tensor | None]:
        """Pad a batch."""


def shorten(ids: list[int], limit: int, unsafe: bool, rng: random.Random) -> list[int]:
    """Cut `ids` to `limit` tokens, as the module's docstring says."""
    if len(ids) <= limit:
        return ids
    if unsafe:
        head = limit * 2 // 3
        return ids[:head] + ids[len(ids) - (limit - head) :]
    start = rng.randrange(len(ids) - limit + 1)
    return ids[start : start + limit]


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of `text` without special tokens."""
    return list(tokenizer.encode(text, add_special_tokens=False).ids)
