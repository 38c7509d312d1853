"""Running a guard over files of labelled rows."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from langchain_safeguard.evaluation.dataset import Row, dataset_name, read_rows
from langchain_safeguard.evaluation.metrics import measure
from langchain_safeguard.evaluation.progress import progress_bar
from langchain_safeguard.evaluation.report import CategoryResult, FileResult, Report
from langchain_safeguard.guards.base import Guard
from langchain_safeguard.loading import load_guard
from langchain_safeguard.policy import Policy, probability
from langchain_safeguard.safeguard import Safeguard
from langchain_safeguard.taxonomy import SIDES, Category
from langchain_safeguard.verdict import Verdict

_WARM_UP = "Which bread keeps longest?"
_MOST_FAILURES = 3
"""After so many rows that cannot be judged, latencies are not measured on more of them."""


def evaluate(
    guard: str | Path | Guard,
    files: Iterable[str | Path],
    *,
    threshold: float = 0.5,
    batch_size: int = 32,
    latency_rows: int = 50,
    progress: bool = True,
    timeout_s: float | None = 60.0,
) -> Report:
    """Judge every row of every file and compare with its label.

    A row's score is the verdict's; a guard that gives none scores 1 if it reports anything and 0
    if not. A verdict that failed counts as a score of 1, since it blocks; how many did is reported.

    Args:
        guard: A guard, or what `load_guard` takes.
        files: Files of rows; see `langchain_safeguard.evaluation.dataset`. All are read before the
            first row is judged, so that a mistake in the last one shows at once.
        threshold: The score in [0, 1] from which a text counts as called unsafe.
        batch_size: How many rows the guard gets at a time.
        latency_rows: On how many rows of each file the latency is measured, spread evenly over it:
            each is judged alone, before the rest and after one call that is not timed. 0 measures
            none.
        progress: Whether to show a progress bar on standard error.
        timeout_s: The seconds the guard may take for one batch; `None` waits for ever. A batch that
            is late is asked again row by row.

    Raises:
        DatasetError: A file cannot be read, or has wrong rows.
        ConfigurationError: A value is out of range; the guard is unknown.
        MissingExtraError: scikit-learn is not installed.
    """
    probability("threshold", threshold)
    measure([], [])  # scikit-learn should be missed now, not after an hour of judging.
    paths = [Path(path) for path in files]
    read = [read_rows(path) for path in paths]
    judge = load_guard(guard)
    # The policy says nothing here; but rows go the way that texts go in an app.
    safeguard = Safeguard(judge, Policy(), audit=None, timeout=timeout_s, cache=None)
    results = []
    with progress_bar(sum(map(len, read)), "row", shown=progress) as bar:
        for name, path, rows in zip(_names(paths), paths, read, strict=True):
            bar.set_description_str(name)
            latencies = _latencies(safeguard, _spread(rows, latency_rows))
            verdicts = _judge(safeguard, rows, batch_size, bar)
            results.append(_result(name, path, rows, verdicts, threshold, latencies))
    return Report(judge.name, judge.revision, threshold, tuple(results))


def score_of(verdict: Verdict) -> float:
    """The risk in [0, 1] that a verdict stands for; see `evaluate`."""
    if verdict.failed:
        return 1.0
    if verdict.score is not None:
        return verdict.score
    return 1.0 if verdict.findings else 0.0


def category_score(verdict: Verdict, category: Category) -> float:
    """The risk in [0, 1] of one category."""
    if verdict.failed:
        return 1.0
    found = [finding.score for finding in verdict.findings if finding.category is category]
    return max((1.0 if score is None else score for score in found), default=0.0)


def _judge(safeguard: Safeguard, rows: Sequence[Row], size: int, bar: Any) -> list[Verdict]:
    """Judge all rows, in batches of one side each."""
    verdicts: dict[int, Verdict] = {}
    for side in SIDES:
        numbers = [number for number, row in enumerate(rows) if row.side == side]
        for start in range(0, len(numbers), size):
            batch = numbers[start : start + size]
            values = [rows[number].conversation for number in batch]
            for number, decision in zip(batch, safeguard.batch(values, side=side), strict=True):
                verdicts[number] = decision.verdicts[0]
            bar.update(len(batch))
    return [verdicts[number] for number in range(len(rows))]


def _latencies(safeguard: Safeguard, rows: Sequence[Row]) -> list[float]:
    """Milliseconds for each of these rows, judged alone.

    A row the guard fails on gives none: its failure is counted where all rows are judged.
    """
    safeguard.check(_WARM_UP)
    taken: list[float] = []
    failures = 0
    for row in rows:
        value = row.conversation
        begin = time.perf_counter()
        decision = safeguard.check(value, side=row.side)
        milliseconds = (time.perf_counter() - begin) * 1000
        if not decision.failed:
            taken.append(milliseconds)
            continue
        failures += 1
        if failures == _MOST_FAILURES:
            break
    return taken


def _spread(rows: Sequence[Row], most: int) -> Sequence[Row]:
    if most <= 0:
        return []
    return rows[:: -(-len(rows) // most)]


def _result(
    name: str,
    path: Path,
    rows: Sequence[Row],
    verdicts: Sequence[Verdict],
    threshold: float,
    latencies: Sequence[float],
) -> FileResult:
    return FileResult(
        name=name,
        path=str(path),
        metrics=measure([row.unsafe for row in rows], [*map(score_of, verdicts)], threshold),
        categories=_by_category(rows, verdicts, threshold),
        failed=sum(verdict.failed for verdict in verdicts),
        reasons=dict(Counter(v.reason or "no reason given" for v in verdicts if v.failed)),
        unchecked=sum(bool(verdict.unchecked) for verdict in verdicts),
        latency_ms_p50=statistics.median(latencies) if latencies else None,
        latency_ms_mean=statistics.fmean(latencies) if latencies else None,
        latency_rows=len(latencies),
    )


def _by_category(
    rows: Sequence[Row], verdicts: Sequence[Verdict], threshold: float
) -> dict[str, CategoryResult]:
    """Results per category, over the rows of which it is known whether they are of it."""
    known = [
        (row, verdict)
        for row, verdict in zip(rows, verdicts, strict=True)
        if row.categories or not row.unsafe
    ]
    present = {category for row, _ in known if row.unsafe for category in row.categories or ()}
    results = {}
    for category in sorted(present):
        labels = [row.unsafe and category in (row.categories or ()) for row, _ in known]
        scores = [category_score(verdict, category) for _, verdict in known]
        caught = [
            score_of(verdict) >= threshold
            for (_, verdict), label in zip(known, labels, strict=True)
            if label
        ]
        results[category.value] = CategoryResult(
            n=len(caught), caught=statistics.fmean(caught), own=measure(labels, scores, threshold)
        )
    return results


def _names(paths: Sequence[Path]) -> list[str]:
    """A name for each file; a second file of the same name gets a number."""
    names: list[str] = []
    for path in paths:
        plain = name = dataset_name(path)
        number = 1
        while name in names:
            number += 1
            name = f"{plain}-{number}"
        names.append(name)
    return names
