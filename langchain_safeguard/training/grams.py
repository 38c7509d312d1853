"""Fitting the n-gram model: TF-IDF weighted hashed features and logistic regression."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch
from scipy import sparse  # type: ignore[import-untyped]
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from langchain_safeguard.embedded.features import buckets
from langchain_safeguard.embedded.model import GRAM_OUTPUTS
from langchain_safeguard.embedded.normalize import normalize
from langchain_safeguard.training import mixture
from langchain_safeguard.training.rows import Row, targets

_TEXT, _PROMPT = 900, 1200
"""Characters of text and prompt that are read; a window has about as many."""


def features(rows: Sequence[Row], bits: int, rng: random.Random) -> sparse.csr_matrix:
    """Sublinear counts of n-grams: a sparse float32 matrix (rows, 2 ** bits)."""
    windows: list[tuple[str, str | None]] = []
    for row in rows:
        text = normalize(row.text)
        if len(text) > _TEXT:
            # As in `encode.shorten`: unsafe texts keep both ends, others give a random window.
            start = rng.randrange(len(text) - _TEXT)
            both = text[: _TEXT * 2 // 3] + " " + text[-_TEXT // 3 :]
            text = both if row.unsafe else text[start : start + _TEXT]
        prompt = normalize(row.prompt or "")[-_PROMPT:] if row.side == "output" else None
        windows.append((text, prompt))
    return counted(windows, bits)


def counted(windows: Sequence[tuple[str, str | None]], bits: int) -> sparse.csr_matrix:
    """The same of normalised windows (text, prompt), as they are."""
    columns, values, ends = [], [], [0]
    for text, prompt in windows:
        found, counts = buckets(text, prompt, bits)
        columns.append(found)
        values.append(counts)
        ends.append(ends[-1] + len(found))
    shape = (len(windows), 2**bits)
    return sparse.csr_matrix((np.concatenate(values), np.concatenate(columns), ends), shape=shape)


def fit_grams(
    rows: Sequence[Row], bits: int, seed: int = 7, iterations: int = 80, cost: float = 20.0
) -> dict[str, Tensor]:
    """Fit on one epoch of the mixture; returns the state of `model.GramModel`."""
    chosen = [rows[index] for index in mixture.epoch(rows, seed)]
    matrix = features(chosen, bits, random.Random(seed))
    frequency = np.bincount(matrix.indices, minlength=2**bits)
    rarity = np.log((1 + len(chosen)) / (1 + frequency)) + 1.0
    # An n-gram of one or two rows teaches those rows, not the language.
    rarity[frequency < 3] = 0.0
    unit = float(rarity.max()) / 255.0
    coded = np.round(rarity / unit).astype(np.uint8)
    matrix.data *= (coded * unit).astype(np.float32)[matrix.indices]
    matrix.eliminate_zeros()
    norms = np.sqrt(np.asarray(matrix.multiply(matrix).sum(1)).ravel())
    matrix = sparse.diags((1.0 / np.maximum(norms, 1e-6)).astype(np.float32)) @ matrix
    used = np.flatnonzero(coded)
    matrix = matrix.tocsr()[:, used]
    truth, known = targets(chosen)
    weight = np.zeros((2**bits, len(GRAM_OUTPUTS)), dtype=np.float16)
    bias = np.zeros(len(GRAM_OUTPUTS), dtype=np.float32)
    for column, output in enumerate(GRAM_OUTPUTS):
        told = known[:, output] > 0
        model = LogisticRegression(C=cost, max_iter=iterations, tol=1e-6)
        model.fit(matrix[told], truth[told, output])
        weight[used, column], bias[column] = model.coef_[0], model.intercept_[0]
    return {
        "rarity": torch.from_numpy(coded),
        "rarity_unit": torch.tensor(unit),
        "weight": torch.from_numpy(weight),
        "bias": torch.from_numpy(bias),
    }
