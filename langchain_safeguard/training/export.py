"""Writing what ships: the weight files, with the mixing weights in them, and two tokenizers."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from langchain_safeguard.embedded.engine import ORDERS, PIECES, WEIGHTS, WORDS
from langchain_safeguard.embedded.labels import HARM_CATEGORIES, OUTPUTS
from langchain_safeguard.embedded.weights_file import write_weights

Mix = dict[str, Tensor]
"""`with_word_mix` (3, L), `_offset` (L,), `_kinds` (categories,); the same for `without_word`."""


RUDE = frozenset({"hate", "harassment", "profanity"})
RUDE_OFFSETS = {"with_word": -3.0, "without_word": -0.5}
"""Logit by which rude texts have to be clearer than others to count as harmful.

Two thirds of all false alarms are comments about groups and rough language, and missing one costs
less than missing a threat: at an equal share of false alarms this finds more of everything else.
Korean gains little from it, its rows being mostly of that kind.
"""


def even_mix() -> Mix:
    """The plain mean of the branches: where calibration starts."""
    share = torch.full((3, len(OUTPUTS)), 1 / 3)
    share[:, 1:-2] = torch.tensor([0.5, 0.5, 0.0])[:, None]
    alone = share.clone()
    alone[0] = 0.0
    alone = alone / alone.sum(0)
    none = torch.zeros(len(OUTPUTS))
    rude = torch.tensor([float(name in RUDE) for name in HARM_CATEGORIES])
    return {
        "with_word_mix": share,
        "with_word_offset": none,
        "without_word_mix": alone,
        "without_word_offset": none.clone(),
        "with_word_kinds": rude * RUDE_OFFSETS["with_word"],
        "without_word_kinds": rude * RUDE_OFFSETS["without_word"],
    }


def export(
    folder: Path,
    branches: dict[str, dict[str, Tensor]],
    mix: Mix,
    tokenizers: tuple[Tokenizer, Tokenizer],
    orders: dict[str, Tensor],
) -> str:
    """Write weights and tokenizers into `folder`.

    Args:
        folder: Made when it does not exist.
        branches: State of the modules `word`, `phrase` and `grams`.
        mix: Mixing weights.
        tokenizers: WordPiece, SentencePiece.
        orders: State of the order model.

    Returns:
        The checksum of the weights without those of the order model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{b}.{name}": value for b, state in branches.items() for name, value in state.items()
    }
    settings: dict[str, int | float | str] = {
        "words": tensors["word.encoder.words.weight"].shape[0],
        "pieces": tensors["phrase.encoder.pieces.weight"].shape[0],
        "gram_bits": int(tensors["grams.rarity"].numel()).bit_length() - 1,
    }
    for name, tokenizer in zip((WORDS, PIECES), tokenizers, strict=True):
        # Compact: the pretty form is half white space.
        compact = json.dumps(
            json.loads(tokenizer.to_str()), ensure_ascii=False, separators=(",", ":")
        )
        (folder / name).write_text(compact, encoding="utf-8")
    write_weights(folder / ORDERS, orders, {})
    return write_weights(folder / WEIGHTS, tensors | mix, settings)


def branch_state(path: Path) -> dict[str, Tensor]:
    """The module state in a checkpoint that `fit.Fitter` wrote."""
    state: dict[str, Tensor] = torch.load(path, weights_only=True, map_location="cpu")["branch"]
    return state
