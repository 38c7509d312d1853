"""Fitting the mix of the branches on rows that none of them was trained on."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from langchain_safeguard.embedded.engine import WindowEngine
from langchain_safeguard.embedded.labels import OUTPUTS
from langchain_safeguard.embedded.model import GRAM_OUTPUTS, by_kind
from langchain_safeguard.embedded.normalize import normalize
from langchain_safeguard.training.calibrate import fit_mix, row_weights, shift_for
from langchain_safeguard.training.export import Mix, even_mix
from langchain_safeguard.training.rows import Row, targets

_CHARACTERS = 900
"""Of a longer held-out text the first window or so is enough to fit a mix."""


def sample(rows: Sequence[Row], most: int = 120, seed: int = 5) -> list[Row]:
    """At most `most` harmful and `most` harmless rows of every file."""
    order = list(rows)
    random.Random(seed).shuffle(order)
    seen: Counter[tuple[str, bool]] = Counter()
    chosen = []
    for row in order:
        seen[row.file, row.unsafe] += 1
        if seen[row.file, row.unsafe] <= most:
            chosen.append(row)
    return chosen


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Logits of the branches on one window of each row; `word` is NaN where it can't read."""

    rows: Sequence[Row]
    word: Tensor
    phrase: Tensor
    grams: Tensor


def look(engine: WindowEngine, rows: Sequence[Row], chunk: int = 256) -> HeldOut:
    """Run the branches over the beginnings of `rows`."""
    keys: list[tuple[str, str | None]] = [
        (
            normalize(row.text)[:_CHARACTERS] or " ",
            normalize(row.prompt or "")[-1200:] if row.side == "output" else None,
        )
        for row in rows
    ]
    word = torch.full((len(rows), len(OUTPUTS)), torch.nan)
    phrase, grams = [], []
    for start in range(0, len(keys), chunk):
        views = engine.views(keys[start : start + chunk])
        phrase.append(views.phrase)
        grams.append(views.grams)
        if views.word is not None:
            word[torch.tensor(views.read) + start] = views.word
    return HeldOut(rows, word, torch.cat(phrase), torch.cat(grams))


def fit(held: HeldOut, natural: Tensor, false_alarms: float = 0.02) -> Mix:
    """Fit the mix and the operating point.

    Args:
        held: Logits of the branches on held-out rows.
        natural: Weight of each row (rows,) that undoes the sampling by file.
        false_alarms: Share of harmless rows, of each language, that may score 0.5 or more.
    """
    mix = even_mix()
    truth, known = (torch.from_numpy(part) for part in targets(held.rows))
    weights = row_weights(held.rows, 1.0)
    korean = torch.tensor([row.korean for row in held.rows])
    readable = ~held.word[:, 0].isnan() & ~korean
    # Without the word branch it is Korean that counts; English rows only steady the fit.
    alone = weights * torch.where(korean, 3.0, 1.0)
    every = torch.ones_like(korean)
    for name, rows, importance, branches, counted in (
        ("with_word", readable, weights, [0, 1, 2], readable),
        ("without_word", every, alone, [1, 2], korean),
    ):
        for column, output in enumerate(GRAM_OUTPUTS):
            chosen = rows & (known[:, output] > 0)
            views = [held.word[:, output], held.phrase[:, output], held.grams[:, column]]
            logits = torch.stack([views[branch][chosen] for branch in branches], dim=1)
            weight, offset = fit_mix(logits, truth[chosen, output], importance[chosen])
            mix[f"{name}_mix"][:, output] = 0.0
            mix[f"{name}_mix"][branches, output] = weight
            mix[f"{name}_offset"][output] = offset
        harmless = counted & torch.tensor([not row.unsafe for row in held.rows])
        _shift(mix, name, held, harmless, natural, false_alarms)
        _temper(mix, name, held, counted & (known[:, 0] > 0), truth[:, 0], natural)
    return mix


def mixed(mix: Mix, name: str, held: HeldOut) -> Tensor:
    """Logits (rows, L) as `HybridModel.mixed` computes them."""
    wide = torch.zeros_like(held.phrase)
    wide[:, list(GRAM_OUTPUTS)] = held.grams
    views = torch.stack([held.word.nan_to_num(), held.phrase, wide])
    logits = (views * mix[f"{name}_mix"][:, None]).sum(0) + mix[f"{name}_offset"]
    return by_kind(logits, mix[f"{name}_kinds"])


def _shift(
    mix: Mix, name: str, held: HeldOut, harmless: Tensor, natural: Tensor, share: float
) -> None:
    """Move the offsets so that `share` of the harmless rows are false alarms, most of harm."""
    weights = natural[harmless]
    for output in GRAM_OUTPUTS[1:]:
        move = shift_for(mixed(mix, name, held)[harmless, output], weights, share / 8)
        mix[f"{name}_offset"][output] += min(0.0, move)
    logits = mixed(mix, name, held)[harmless]
    quiet = logits[:, GRAM_OUTPUTS[1:]].amax(1) < 0
    rest = share - float((weights * ~quiet).sum() / weights.sum())
    harm = torch.where(quiet, logits[:, 0], torch.full_like(logits[:, 0], -100.0))
    mix[f"{name}_offset"][0] += shift_for(harm, weights, rest)


def _temper(
    mix: Mix, name: str, held: HeldOut, rows: Tensor, truth: Tensor, natural: Tensor
) -> None:
    """Flatten the harm scores around the operating point until they are honest probabilities."""
    harm = mixed(mix, name, held)[rows, 0]
    losses = {
        factor / 20: float(
            functional.binary_cross_entropy_with_logits(
                harm * (factor / 20), truth[rows], weight=natural[rows]
            )
        )
        for factor in range(8, 25)
    }
    best = min(losses, key=losses.__getitem__)
    mix[f"{name}_mix"][:, 0] *= best
    mix[f"{name}_offset"][0] *= best
    mix[f"{name}_kinds"] *= best


def natural_weights(chosen: Sequence[Row], whole: Sequence[Row]) -> Tensor:
    """Weights (chosen,) that give every file its share in `whole`, harmful and harmless apart."""
    sizes = Counter((row.file, row.unsafe) for row in whole)
    taken = Counter((row.file, row.unsafe) for row in chosen)
    shares = [sizes[row.file, row.unsafe] / taken[row.file, row.unsafe] for row in chosen]
    return torch.tensor(shares)
