"""The figures of a binary classifier that gives scores.

A text is called unsafe when its score is at least the threshold. With TP, FP, TN, FN counted so:

* `precision` = TP / (TP + FP), 0 if nothing is called unsafe; `recall` = TP / (TP + FN);
  `f1` = their harmonic mean; `fpr` = FP / (FP + TN), the share of safe texts called unsafe.
* `auprc`: average precision, the area under the precision-recall curve as a step function (no
  interpolation), as the papers on guard models report it.
* `roc_auc`: the probability that a random unsafe text scores higher than a random safe one, a tie
  counting half.
* `recall_at_fpr_1`, `recall_at_fpr_5`: the highest recall that any threshold reaches while at most
  1 % (5 %) of the safe texts are called unsafe.
* `ece`: expected calibration error over 15 bins of equal width: the mean over all texts of how far
  the share of unsafe texts in a bin is from the mean score in that bin.

What needs a class that is missing is `None`: without unsafe texts there is no recall, without safe
ones no `fpr`, without either no `precision`, `f1`, curves. Without any text all are `None`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_safeguard.errors import MissingExtraError

ECE_BINS = 15


@dataclass(frozen=True, slots=True)
class Metrics:
    """The figures; see the module for what each means. All lie in [0, 1] or are `None`."""

    n: int
    auprc: float | None
    roc_auc: float | None
    f1: float | None
    precision: float | None
    recall: float | None
    fpr: float | None
    recall_at_fpr_1: float | None
    recall_at_fpr_5: float | None
    ece: float | None


def measure(labels: Sequence[bool], scores: Sequence[float], threshold: float = 0.5) -> Metrics:
    """Compare scores with labels.

    Args:
        labels: Whether each text is unsafe.
        scores: The risk of each text in [0, 1].
        threshold: The score from which a text is called unsafe.

    Raises:
        ValueError: There are not as many scores as labels.
        MissingExtraError: scikit-learn is not installed.
    """
    if len(labels) != len(scores):
        raise ValueError(f"{len(labels)} labels, but {len(scores)} scores")
    sklearn = _sklearn_metrics()
    called = [score >= threshold for score in scores]
    unsafe, safe = sum(labels), len(labels) - sum(labels)
    hits = sum(c and label for c, label in zip(called, labels, strict=True))
    false = sum(called) - hits
    both = unsafe > 0 and safe > 0
    exact = {"zero_division": 0.0}
    return Metrics(
        n=len(labels),
        auprc=float(sklearn.average_precision_score(labels, scores)) if both else None,
        roc_auc=float(sklearn.roc_auc_score(labels, scores)) if both else None,
        f1=float(sklearn.f1_score(labels, called, **exact)) if both else None,
        precision=float(sklearn.precision_score(labels, called, **exact)) if both else None,
        recall=hits / unsafe if unsafe else None,
        fpr=false / safe if safe else None,
        recall_at_fpr_1=recall_at_fpr(labels, scores, 0.01) if both else None,
        recall_at_fpr_5=recall_at_fpr(labels, scores, 0.05) if both else None,
        ece=calibration_error(labels, scores) if labels else None,
    )


def recall_at_fpr(labels: Sequence[bool], scores: Sequence[float], most: float) -> float:
    """The highest recall with at most this share of safe texts called unsafe.

    Needs texts of both classes. A tie between safe and unsafe texts cannot be split by any
    threshold, so it is not.
    """
    fpr, tpr, _ = _sklearn_metrics().roc_curve(labels, scores, drop_intermediate=False)
    return float(max(t for f, t in zip(fpr, tpr, strict=True) if f <= most))


def calibration_error(
    labels: Sequence[bool], scores: Sequence[float], bins: int = ECE_BINS
) -> float:
    """The expected calibration error over bins of equal width; needs at least one text."""
    members: list[list[tuple[bool, float]]] = [[] for _ in range(bins)]
    for label, score in zip(labels, scores, strict=True):
        members[min(int(score * bins), bins - 1)].append((label, score))
    gaps = (abs(sum(label - score for label, score in member)) for member in members)
    return sum(gaps) / len(labels)


def _sklearn_metrics() -> Any:
    try:
        from sklearn import metrics
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "evaluation") from error
    return metrics
