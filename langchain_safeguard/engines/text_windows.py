"""Texts as the token windows that a sequence classifier reads: nothing is cut off."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_safeguard.embedded.windows import windows
from langchain_safeguard.errors import ConfigurationError

_OVERLAP = 4
"""A window shares at least this part (one over it) with the one before it."""
_LEAST = 4
"""The fewest tokens of a text in a window."""
_SURROGATES = re.compile("[\ud800-\udfff]")
_RUNS = re.compile(r"\w{1,64}|\W{1,64}")
"""Parts of what a vocabulary has no word for; WordPiece gives up on words of over 100 letters."""


@dataclass(frozen=True, slots=True)
class TokenWindow:
    """What a classifier reads at once.

    Attributes:
        ids: Its tokens, with those that stand around every text.
        start: Its first character in the text.
        end: One past its last character.
    """

    ids: list[int]
    start: int
    end: int


class WindowTokenizer:
    """Cuts texts into windows of tokens.

    Control tokens such as `[SEP]` in a text are read as the letters that they are.

    Args:
        tokenizer: A fast tokenizer of transformers.
        limit: The most tokens in a window, those around every text included.

    Raises:
        ConfigurationError: The tokenizer cannot tell the characters of its tokens, or the limit
            leaves no room for a text.
    """

    def __init__(self, tokenizer: Any, limit: int) -> None:
        """Find what the tokenizer puts around every text."""
        if not tokenizer.is_fast:
            raise ConfigurationError(
                f"tokenizer={type(tokenizer).__name__}; allowed: a fast one, which tells the "
                "characters of each token"
            )
        self._tokenizer = tokenizer
        self._unknown = tokenizer.unk_token_id
        added = tokenizer.added_tokens_decoder
        control = {
            *tokenizer.all_special_ids,
            *(at for at, token in added.items() if token.special),
        }
        self._control = frozenset(control - {self._unknown})
        self._strange = self._control | {self._unknown}
        self._before, self._after = _around(tokenizer)
        self._room = limit - len(self._before) - len(self._after)
        if self._room < _LEAST:
            least = limit - self._room + _LEAST
            raise ConfigurationError(f"limit={limit}; allowed: {least} tokens or more")
        # What an empty text is read as, where nothing stands around a text.
        ids = (tokenizer.eos_token_id, tokenizer.pad_token_id, 0)
        self._nothing = next(token for token in ids if token is not None)

    def cut(self, texts: Sequence[str]) -> list[list[TokenWindow]]:
        """Return the windows of each text; at least one, and every character is in one.

        A text that fits is one window. What is no longer than a quarter of a window stands whole
        in at least one of them.
        """
        # Lone surrogates are no text that a tokenizer takes; the replacement is as long.
        plain = [_SURROGATES.sub("\ufffd", text) for text in texts]
        return [
            self._windows(text, *self._spelled_out(text, *tokens))
            for text, tokens in zip(plain, self._encode(plain), strict=True)
        ]

    def _windows(
        self, text: str, ids: list[int], offsets: list[tuple[int, int]]
    ) -> list[TokenWindow]:
        cut = windows(offsets, len(text), self._room, self._room // _OVERLAP)
        return [
            TokenWindow([*self._before, *ids[w.first : w.last], *self._after], w.start, w.end)
            for w in cut
        ] or [TokenWindow([*self._before, *self._after] or [self._nothing], 0, len(text))]

    def _encode(self, texts: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        if not texts:
            return []
        found = self._tokenizer(
            list(texts),
            add_special_tokens=False,
            split_special_tokens=True,
            truncation=False,
            padding=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        return [*zip(found["input_ids"], found["offset_mapping"], strict=True)]

    def _spelled_out(
        self, text: str, ids: list[int], offsets: list[tuple[int, int]]
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """Read part by part what would otherwise be one strange token."""
        if self._strange.isdisjoint(ids):
            return ids, offsets
        parts = {}
        for place, (token, span) in enumerate(zip(ids, offsets, strict=True)):
            if token in self._strange and (found := self._parts(text, token, *span)):
                parts[place] = found
        # A text made of such words repeats them: each is encoded once.
        words = [*{text[i:j]: None for spans in parts.values() for i, j in spans}]
        encoded = dict(zip(words, self._encode(words), strict=True))
        new_ids: list[int] = []
        new_offsets: list[tuple[int, int]] = []
        for place, (token, offset) in enumerate(zip(ids, offsets, strict=True)):
            if place not in parts:
                new_ids.append(token)
                new_offsets.append(offset)
            for start, stop in parts.get(place, ()):
                part, places = encoded[text[start:stop]]
                new_ids += part
                new_offsets += [(start + begin, start + end) for begin, end in places]
        return new_ids, new_offsets

    def _parts(self, text: str, token: int, start: int, end: int) -> list[tuple[int, int]]:
        """Return the parts in which to read a token anew; none if it is to stay."""
        if token in self._control:
            # SentencePiece has control tokens in its vocabulary, too, so it finds them in a text.
            return [(at, at + 1) for at in range(start, end)]
        # WordPiece has one token for any word that holds a strange sign or is very long: an attack
        # written without blanks, or with an emoji at its end, would be invisible.
        runs = [run.span() for run in _RUNS.finditer(text, start, end)]
        return runs if len(runs) > 1 else []


def _around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the tokens that stand before and after every text."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    for begin in range(len(whole) - len(bare) + 1):
        if bare and whole[begin : begin + len(bare)] == bare:
            return whole[:begin], whole[begin + len(bare) :]
    raise ConfigurationError("the tokenizer has no token for 'a', or changes it between others")
