"""The hybrid model: three views of one window, mixed into one calibrated logit per output.

The word branch (English), the phrase branch (multilingual) and a linear model of hashed n-grams err
in different places, so the weighted mean of their logits is better than each. Weights and offsets
of the mean are fitted on rows held out from training, once for windows that the word branch can
read and once for those it can't.

Shapes: `B` windows, `T` tokens, `L` outputs (`labels.OUTPUTS`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from langchain_safeguard.embedded.branches import PhraseBranch, WordBranch
from langchain_safeguard.embedded.encoders import PhraseEncoder, WordEncoder
from langchain_safeguard.embedded.features import buckets
from langchain_safeguard.embedded.labels import HARM_CATEGORIES, OUTPUTS
from langchain_safeguard.embedded.weights_file import Weights, restore

GRAM_OUTPUTS = (0, len(OUTPUTS) - 2, len(OUTPUTS) - 1)
"""The n-gram model knows harm and the two attacks; categories are left to the encoders."""
VERDICTS = list(GRAM_OUTPUTS)
"""The outputs that decide; the categories only share out the probability of harm."""

_TABLES = ("word.encoder.words", "phrase.encoder.pieces")
KEEP_PACKED = frozenset(f"{name}.weight" for name in _TABLES)
"""Matrices of which a window reads a few rows: they are unpacked row by row, on use."""


class PackedTable(nn.Module):
    """An embedding table of int8 rows with a scale each; reads like `nn.Embedding`."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.embedding_dim = width
        self.register_buffer("q", torch.zeros(rows, width, dtype=torch.int8))
        self.register_buffer("scale", torch.zeros(rows))

    def forward(self, ids: Tensor) -> Tensor:
        """Rows for `ids`, of any shape S: (S, width) float32."""
        table, scale = cast(Tensor, self.q), cast(Tensor, self.scale)
        return table[ids].float() * scale[ids].unsqueeze(-1)


class GramModel(nn.Module):
    """Logistic regression on TF-IDF weighted, hashed n-grams.

    Args:
        bits: There are `2 ** bits` buckets.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.register_buffer("rarity", torch.zeros(2**bits, dtype=torch.uint8))
        self.register_buffer("rarity_unit", torch.ones(()))
        # Half precision: eight bits would drown the many small weights beside a few large ones.
        self.register_buffer("weight", torch.zeros(2**bits, len(GRAM_OUTPUTS), dtype=torch.half))
        self.register_buffer("bias", torch.zeros(len(GRAM_OUTPUTS)))

    def forward(self, windows: Sequence[tuple[str, str | None]]) -> Tensor:
        """Logits (B, 3) of windows (text, prompt)."""
        return torch.stack([self._one(text, prompt) for text, prompt in windows])

    def _one(self, text: str, prompt: str | None) -> Tensor:
        found, counts = buckets(text, prompt, self.bits)
        places = torch.from_numpy(found)
        rarity = cast(Tensor, self.rarity)[places].float() * cast(Tensor, self.rarity_unit)
        values = torch.from_numpy(counts) * rarity
        values = values / values.norm().clamp(min=1e-6)
        weight, bias = cast(Tensor, self.weight), cast(Tensor, self.bias)
        return cast(Tensor, values @ weight[places].float() + bias)


class HybridModel(nn.Module):
    """All three branches and the mixing weights.

    Args:
        words: Size of the WordPiece vocabulary.
        pieces: Size of the SentencePiece vocabulary.
        bits: The n-gram model has `2 ** bits` buckets.
    """

    def __init__(self, words: int, pieces: int, bits: int) -> None:
        super().__init__()
        self.word = WordBranch(WordEncoder(vocabulary=1))
        self.word.encoder.words = PackedTable(words, self.word.encoder.width)
        self.phrase = PhraseBranch(PhraseEncoder(1))
        self.phrase.encoder.pieces = PackedTable(pieces, self.phrase.encoder.width)
        self.grams = GramModel(bits)
        for name in ("with_word", "without_word"):
            self.register_buffer(f"{name}_mix", torch.zeros(3, len(OUTPUTS)))
            self.register_buffer(f"{name}_offset", torch.zeros(len(OUTPUTS)))
            self.register_buffer(f"{name}_kinds", torch.zeros(len(HARM_CATEGORIES)))

    def mixed(self, word: Tensor | None, phrase: Tensor, grams: Tensor) -> Tensor:
        """Calibrated logits (B, L) from those of the branches; `grams` is (B, 3)."""
        wide = torch.zeros_like(phrase)
        wide[:, VERDICTS] = grams
        name = "without_word" if word is None else "with_word"
        views = torch.stack([torch.zeros_like(phrase) if word is None else word, phrase, wide])
        mix, offset, kinds = (
            cast(Tensor, getattr(self, f"{name}_{part}")) for part in ("mix", "offset", "kinds")
        )
        return by_kind((views * mix[:, None, :]).sum(0) + offset, kinds)


def by_kind(logits: Tensor, kinds: Tensor) -> Tensor:
    """Move the harm logits of `logits` (B, L) by an offset for the kind of harm they look like.

    Insults and prejudice shade into ordinary rudeness where a bomb recipe does not, so the same
    evidence means less there. `kinds` (categories,) are weighted by how likely each category is.
    """
    moved = logits.clone()
    moved[:, 0] += logits[:, 1 : 1 + len(kinds)].softmax(1) @ kinds
    return moved


def build(weights: Weights) -> HybridModel:
    """The model with the weights of a file, ready for inference.

    Raises:
        RuntimeError: Names or shapes do not fit.
        KeyError: A setting is missing.
    """
    settings = weights.settings
    with torch.device("meta"):
        model = HybridModel(
            int(settings["words"]), int(settings["pieces"]), int(settings["gram_bits"])
        )
    model.load_state_dict(_state(weights.tensors), assign=True)
    return model.eval().requires_grad_(False)


def _state(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """File names to module names: a packed table is a module with two buffers."""
    state = restore(tensors, KEEP_PACKED)
    named: dict[str, Tensor] = {}
    for name, tensor in state.items():
        for kept in KEEP_PACKED:
            if name in (f"{kept}.q", f"{kept}.scale"):
                name = f"{kept.removesuffix('.weight')}.{name.rsplit('.', 1)[1]}"
                break
        named[name] = tensor
    return named


def category_scores(logits: Tensor) -> np.ndarray:
    """Calibrated logits (B, L) to probabilities (B, categories), columns as `labels.CATEGORIES`.

    The riskiest harm category gets the probability of harm itself and the others their share of
    it, so that the maximum over categories is the overall verdict. When no category speaks up,
    `other` does.
    """
    probability = torch.sigmoid(logits)
    harm, kinds, attacks = probability[:, :1], probability[:, 1:-2].clone(), probability[:, -2:]
    silent = kinds.amax(1) < 0.1
    kinds[silent, -1] = 1.0
    kinds = harm * kinds / kinds.amax(1, keepdim=True)
    return torch.cat([kinds[:, :-1], attacks, kinds[:, -1:]], dim=1).numpy()
