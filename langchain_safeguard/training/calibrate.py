"""Mixing the branches: weights and offsets fitted on rows held out from training.

Per output a logistic regression with non-negative weights on the branches' logits. Rows are
weighted so that no source decides alone, and harmless rows count more than harmful ones, because
the score 0.5 is where a guard acts and a false alarm at every hundredth message is the most
people accept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from langchain_safeguard.training.rows import Row


def row_weights(rows: Sequence[Row], harmless: float) -> Tensor:
    """Weights (rows,) that give every file the square root of its size; mean 1."""
    sizes = Counter((row.file, row.unsafe) for row in rows)
    weights = torch.tensor(
        [sizes[row.file, row.unsafe] ** -0.5 * (1.0 if row.unsafe else harmless) for row in rows]
    )
    return weights / weights.mean()


def fit_mix(
    logits: Tensor, truth: Tensor, weights: Tensor, prior: float = 0.02
) -> tuple[Tensor, Tensor]:
    """Fit one output.

    Args:
        logits: Logits (rows, branches).
        truth: 0 or 1 (rows,).
        weights: Importance (rows,).
        prior: Strength of the pull towards equal weights.

    Returns:
        Weights (branches,), none negative, and the offset, a scalar.
    """
    branches = logits.shape[1]
    raw = torch.full((branches,), -0.5, requires_grad=True)
    offset = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.LBFGS([raw, offset], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        mix = functional.softplus(raw)
        mixed = logits @ mix + offset
        value = functional.binary_cross_entropy_with_logits(mixed, truth, weight=weights)
        value = value + prior * (mix - mix.mean()).square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return functional.softplus(raw).detach(), offset.detach()


def shift_for(scores: Tensor, weights: Tensor, share: float) -> float:
    """What to add to harmless logits (rows,) so that `share` of their weight stays above zero."""
    order = scores.argsort(descending=True)
    above = weights[order].cumsum(0) / weights.sum()
    place = int((above <= share).sum().clamp(max=len(scores) - 1))
    return -float(scores[order][place])
