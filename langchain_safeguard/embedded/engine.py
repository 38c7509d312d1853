"""Runs the hybrid model over windows: tokenising, batching by length, and choosing branches.

The word branch only understands Latin script. It reads windows that hold Latin words; of a window
that also holds Hangul it reads the Latin part, and the riskier of the two verdicts (with and
without it) counts, so that mixing scripts can't talk the guard out of either.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from langchain_safeguard.embedded.batches import (
    Example,
    length_batches,
    phrase_batch,
    word_batch,
)
from langchain_safeguard.embedded.model import VERDICTS, HybridModel, build, category_scores
from langchain_safeguard.embedded.orders import OrderModel
from langchain_safeguard.embedded.weights_file import read_weights
from langchain_safeguard.errors import GuardLoadError

WEIGHTS, WORDS, PIECES = "embedded.safetensors", "words.json", "pieces.json"
ORDERS = "orders.safetensors"

_LATIN_WORD = re.compile(r"[A-Za-z\u00c0-\u024f]{2,}")
_HANGUL = re.compile("[\u1100-\u11ff\u3131-\u318e\uac00-\ud7a3]+")
_WORD_LIMIT = 420
"""Most WordPiece tokens in one sequence; with the prompt it stays below the 512 positions."""
_WORD_PROMPT, _PHRASE_PROMPT = 56, 80
"""Tokens of the prompt that each branch reads, as in training."""
_BATCH_TOKENS = 2048
_WORD_MOST = 6.0
"""Label smoothing keeps the word branch's logits below about 5."""
_SURE = -2.0
"""Logit below which the cheap branches count as sure of a harmless window (12 %)."""
_NO_ORDER = -3.0
"""Logit of the n-grams below which a line of a tool's result counts as no order (5 %)."""
_REPAIR = "Reinstall langchain-safeguard to repair it."


@dataclass(frozen=True, slots=True)
class Views:
    """Logits of the branches: `phrase` (B, L), `grams` (B, 3), `word` for the windows `read`."""

    word: Tensor | None
    read: list[int]
    phrase: Tensor
    grams: Tensor


class WindowEngine:
    """Scores windows; holds the model and both tokenizers, and no state between calls."""

    def __init__(
        self,
        model: HybridModel,
        words: Tokenizer,
        pieces: Tokenizer,
        orders: OrderModel,
        revision: str,
    ) -> None:
        self._model, self._words, self._pieces = model, words, pieces
        self._orders = orders
        self.revision = revision

    @classmethod
    def load(cls, folder: Path) -> WindowEngine:
        """Load from `folder`.

        Raises:
            GuardLoadError: A file is missing, cut short or altered.
        """
        weights = read_weights(folder / WEIGHTS)
        try:
            model = build(weights)
        except (RuntimeError, KeyError, ValueError) as error:
            msg = f"The weights in {folder / WEIGHTS} do not fit this version. {_REPAIR}"
            raise GuardLoadError(msg) from error
        words, pieces = (_tokenizer(folder / name) for name in (WORDS, PIECES))
        orders, checksum = _orders(folder / ORDERS)
        both = hashlib.sha256(f"{weights.checksum}{checksum}".encode()).hexdigest()
        return cls(model, words, pieces, orders, both[:12])

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Character spans of the pieces of `text`."""
        found: list[tuple[int, int]] = self._pieces.encode(text, add_special_tokens=False).offsets
        return found

    @torch.inference_mode()
    def score(self, windows: Sequence[tuple[str, str | None]]) -> NDArray[np.float32]:
        """Probabilities (windows, categories) of windows (text, prompt or None)."""
        views = self.views(windows, needed_only=True)
        logits = self._model.mixed(None, views.phrase, views.grams)
        if views.word is not None:
            read = views.read
            mixed = self._model.mixed(views.word, views.phrase[read], views.grams[read])
            both = torch.tensor([_HANGUL.search(windows[index][0]) is not None for index in read])
            logits[read] = torch.where(both[:, None], torch.maximum(mixed, logits[read]), mixed)
        found: NDArray[np.float32] = category_scores(logits)
        return found

    @torch.inference_mode()
    def orders(self, lines: Sequence[str]) -> NDArray[np.float32]:
        """How sure it is that each line of a tool's result orders its reader to act (lines,).

        The sum of the logits of n-grams and word branch; n-grams count twice where it is not asked.
        """
        grams = self._orders.by_grams(lines)
        logits = 2.0 * grams
        read = [i for i, line in enumerate(lines) if grams[i] > _NO_ORDER and is_latin(line)]
        examples: list[Example] = [
            (_ids(self._words, lines[index])[:_WORD_LIMIT] or [0], None) for index in read
        ]
        for batch in length_batches(examples, _BATCH_TOKENS):
            pooled = self._model.word.pooled(**word_batch([examples[index] for index in batch]))
            places = [read[index] for index in batch]
            logits[places] = grams[places] + self._orders.by_words(pooled.numpy())
        return logits

    @torch.inference_mode()
    def views(self, windows: Sequence[tuple[str, str | None]], needed_only: bool = False) -> Views:
        """Logits of the branches, before they are mixed.

        Args:
            windows: Texts, each with the prompt it answers or None.
            needed_only: Spare the word branch, the dearest, where it can't change a verdict.
        """
        phrase, grams = self._phrase(windows), self._model.grams(windows)
        latin = [self._latin_part(text) for text, _ in windows]
        open_ = self._open(phrase, grams) if needed_only else [True] * len(windows)
        read = [i for i, part in enumerate(latin) if part is not None and open_[i]]
        word = None
        if read:
            word = self._word([(latin[index] or "", windows[index][1]) for index in read])
        return Views(word, read, phrase, grams)

    def _open(self, phrase: Tensor, grams: Tensor) -> list[bool]:
        """Whether the verdict on each window still depends on the word branch.

        It does not when the other two are sure that the window is harmless and even the highest
        logits the word branch ever gives would leave the mix below one half.
        """
        alone = self._model.mixed(None, phrase, grams)[:, VERDICTS].amax(1)
        most = self._model.mixed(torch.full_like(phrase, _WORD_MOST), phrase, grams)
        return ((alone > _SURE) | (most[:, VERDICTS].amax(1) > 0.0)).tolist()

    @staticmethod
    def _latin_part(text: str) -> str | None:
        """What the word branch should read of `text`, None when there is too little."""
        if not _HANGUL.search(text):
            return text if _LATIN_WORD.search(text) else None
        part = _HANGUL.sub(" ", text)
        # A name or a term in a Korean sentence says nothing on its own.
        return part if len(_LATIN_WORD.findall(part)) >= 3 else None

    def _phrase(self, windows: Sequence[tuple[str, str | None]]) -> Tensor:
        examples: list[Example] = []
        for text, prompt in windows:
            tail = None if prompt is None else _ids(self._pieces, prompt)[-_PHRASE_PROMPT:]
            examples.append((_ids(self._pieces, text) or [0], tail))
        out = torch.empty(len(windows), self._model.phrase.out.out_features)
        for batch in length_batches(examples, _BATCH_TOKENS):
            out[batch] = self._model.phrase(**phrase_batch([examples[index] for index in batch]))
        return out

    def _word(self, windows: Sequence[tuple[str, str | None]]) -> Tensor:
        examples: list[Example] = []
        owners: list[int] = []
        for index, (text, prompt) in enumerate(windows):
            ids = _ids(self._words, text)
            tail = None if prompt is None else _ids(self._words, prompt)[-_WORD_PROMPT:]
            # Rarely, strange text needs more WordPieces than there are positions: read it in parts.
            for start in range(0, max(len(ids), 1), _WORD_LIMIT):
                examples.append((ids[start : start + _WORD_LIMIT] or [0], tail))
                owners.append(index)
        labels = self._model.word.out.out_features
        parts = torch.empty(len(examples), labels)
        for batch in length_batches(examples, _BATCH_TOKENS):
            parts[batch] = self._model.word(**word_batch([examples[index] for index in batch]))
        place = torch.tensor(owners)[:, None].expand(-1, labels)
        low = torch.full((len(windows), labels), -torch.inf)
        return low.scatter_reduce(0, place, parts, "amax")


def is_latin(text: str) -> bool:
    """Whether `text` has words that the word branch can read, and no Hangul, which it can't."""
    return bool(_LATIN_WORD.search(text)) and not _HANGUL.search(text)


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def _orders(path: Path) -> tuple[OrderModel, str]:
    weights = read_weights(path)
    try:
        grams, words = (weights.tensors[name].float().numpy() for name in ("grams", "words"))
        biases = (float(weights.tensors[f"{name}_bias"]) for name in ("grams", "words"))
        grams_bias, words_bias = biases
        return OrderModel(grams, grams_bias, words, words_bias), weights.checksum
    except (RuntimeError, KeyError, ValueError) as error:
        msg = f"The weights in {path} do not fit this version. {_REPAIR}"
        raise GuardLoadError(msg) from error


def _tokenizer(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    # The tokenizers library raises plain Exception for whatever it can't read.
    except Exception as error:
        msg = f"The embedded guard's tokenizer {path} is missing or damaged. {_REPAIR}"
        raise GuardLoadError(msg) from error
