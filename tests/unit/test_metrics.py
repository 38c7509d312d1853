"""The figures of an evaluation, against small cases computed by hand and against their meaning."""

from __future__ import annotations

import math
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_safeguard.errors import MissingExtraError
from langchain_safeguard.evaluation.metrics import calibration_error, measure, recall_at_fpr

ROWS = st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=40)


def unzip(rows: list[tuple[bool, float]]) -> tuple[list[bool], list[float]]:
    return [label for label, _ in rows], [score for _, score in rows]


def test_a_case_worked_out_by_hand() -> None:
    labels = [True, False, True, False]
    scores = [0.9, 0.8, 0.6, 0.1]
    found = measure(labels, scores)
    # Called unsafe: 0.9 (right), 0.8 (wrong), 0.6 (right).
    assert found.n == 4
    assert found.precision == pytest.approx(2 / 3)
    assert found.recall == 1
    assert found.f1 == pytest.approx(2 * (2 / 3) / (2 / 3 + 1))
    assert found.fpr == 0.5
    # Recall rises by a half at precision 1/1 and by a half at precision 2/3.
    assert found.auprc == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    # Of the four pairs, 0.6 < 0.8 is the one in the wrong order.
    assert found.roc_auc == pytest.approx(0.75)
    assert found.recall_at_fpr_1 == 0.5
    assert found.recall_at_fpr_5 == 0.5


def test_the_threshold_itself_counts_as_unsafe() -> None:
    assert measure([True, False], [0.5, 0.5]).recall == 1
    assert measure([True, False], [0.5, 0.5]).fpr == 1
    assert measure([True, False], [0.5, 0.5], threshold=0.51).recall == 0


def test_a_missing_class_gives_none_where_it_is_needed() -> None:
    only_unsafe = measure([True, True], [0.9, 0.2])
    assert only_unsafe.recall == 0.5
    assert only_unsafe.fpr is None
    only_safe = measure([False, False], [0.9, 0.2])
    assert only_safe.fpr == 0.5
    assert only_safe.recall is None
    for found in (only_unsafe, only_safe):
        assert found.auprc is None
        assert found.roc_auc is None
        assert found.precision is None
        assert found.f1 is None
        assert found.recall_at_fpr_1 is None
        assert found.recall_at_fpr_5 is None


def test_no_rows_give_no_figures_and_no_crash() -> None:
    found = measure([], [])
    assert found.n == 0
    assert found.recall is found.fpr is found.ece is found.auprc is None


def test_nothing_called_unsafe_has_precision_zero() -> None:
    found = measure([True, False], [0.1, 0.2])
    assert (found.precision, found.recall, found.f1) == (0, 0, 0)


def test_recall_at_a_false_positive_rate_allows_exactly_that_rate() -> None:
    labels = [False] * 100 + [True] * 10
    scores = [0.9] + [0.5] * 4 + [0.1] * 95 + [0.95] * 3 + [0.7] * 4 + [0.3] * 3
    # One safe text above 0.7 is 1 %; five above 0.3 are 5 %.
    assert recall_at_fpr(labels, scores, 0.01) == 0.7
    assert recall_at_fpr(labels, scores, 0.05) == 1
    assert recall_at_fpr(labels, scores, 0.0) == 0.3


def test_a_tie_cannot_be_split() -> None:
    assert recall_at_fpr([True, False], [0.5, 0.5], 0.01) == 0


def test_calibration_error_by_hand() -> None:
    # Two bins hold texts: 0.95 with one of two unsafe, 0.05 with none of two.
    labels, scores = [True, False, False, False], [0.95, 0.95, 0.05, 0.05]
    assert calibration_error(labels, scores) == pytest.approx((2 * 0.45 + 2 * 0.05) / 4)
    assert calibration_error([True], [1.0]) == 0
    assert calibration_error([True], [0.0]) == 1


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="2 labels, but 1 scores"):
        measure([True, False], [0.5])


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingExtraError, match=r"langchain-safeguard\[evaluation\]"):
        measure([True], [0.5])


@settings(deadline=None)
@given(ROWS)
def test_figures_are_shares_or_absent(rows: list[tuple[bool, float]]) -> None:
    labels, scores = unzip(rows)
    found = measure(labels, scores)
    for name in ("auprc", "roc_auc", "f1", "precision", "recall", "fpr", "ece"):
        value = getattr(found, name)
        assert value is None or (math.isfinite(value) and -1e-9 <= value <= 1 + 1e-9)
    assert (found.recall is None) == (not any(labels))
    assert (found.fpr is None) == all(labels)


@settings(deadline=None)
@given(ROWS)
def test_roc_auc_is_the_share_of_pairs_in_the_right_order(rows: list[tuple[bool, float]]) -> None:
    labels, scores = unzip(rows)
    unsafe = [score for label, score in rows if label]
    safe = [score for label, score in rows if not label]
    found = measure(labels, scores).roc_auc
    if not unsafe or not safe:
        assert found is None
        return
    wins = sum((u > s) + 0.5 * (u == s) for u in unsafe for s in safe)
    assert found == pytest.approx(wins / len(unsafe) / len(safe))


@settings(deadline=None)
@given(ROWS, st.sampled_from([0.0, 0.01, 0.05, 0.5]))
def test_recall_at_fpr_is_the_best_over_all_thresholds(
    rows: list[tuple[bool, float]], most: float
) -> None:
    labels, scores = unzip(rows)
    if all(labels) or not any(labels):
        return
    best = 0.0
    for threshold in {*scores, 2.0}:
        called = [score >= threshold for score in scores]
        false = sum(c and not label for c, label in zip(called, labels, strict=True))
        hits = sum(c and label for c, label in zip(called, labels, strict=True))
        if false / (len(labels) - sum(labels)) <= most:
            best = max(best, hits / sum(labels))
    assert recall_at_fpr(labels, scores, most) == pytest.approx(best)


@settings(deadline=None)
@given(ROWS)
def test_order_of_rows_does_not_matter(rows: list[tuple[bool, float]]) -> None:
    forward, backward = measure(*unzip(rows)), measure(*unzip(rows[::-1]))
    assert forward.auprc == pytest.approx(backward.auprc)
    assert forward.ece == pytest.approx(backward.ece)
    assert forward.recall_at_fpr_5 == pytest.approx(backward.recall_at_fpr_5)
