"""Results of an evaluation: for the terminal, for a README, and as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from langchain_safeguard.evaluation.metrics import Metrics
from langchain_safeguard.tables import markdown_table, text_table

_COLUMNS = {
    "auprc": "AUPRC",
    "roc_auc": "ROC-AUC",
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "fpr": "FPR",
    "recall_at_fpr_1": "recall at 1 % FPR",
    "recall_at_fpr_5": "recall at 5 % FPR",
    "ece": "ECE",
}
_ABSENT = "–"


@dataclass(frozen=True, slots=True)
class CategoryResult:
    """How a guard did on one category.

    Attributes:
        n: How many rows have this label.
        caught: The share of them that is called unsafe, under whatever category.
        own: The figures of the score the guard gives this very category, over all rows of which it
            is known whether they have the label. `own.n` is their number.
    """

    n: int
    caught: float
    own: Metrics

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: the figures of the own score, with `rows` for their number."""
        own = asdict(self.own)
        return {"n": self.n, "caught": self.caught, "rows": own.pop("n"), **own}


@dataclass(frozen=True, slots=True)
class FileResult:
    """How a guard did on one file.

    Attributes:
        name: The file's name without extensions.
        path: The file.
        metrics: The figures over all rows.
        categories: The same per category, for files that name categories.
        failed: How many rows the guard could not judge; they count as score 1.
        reasons: Why, and how often each.
        unchecked: How many rows have parts the guard could not judge.
        latency_ms_p50: The median milliseconds for one row, judged alone; `None` if not measured.
        latency_ms_mean: The mean of the same.
        latency_rows: On how many rows it was measured.
    """

    name: str
    path: str
    metrics: Metrics
    categories: dict[str, CategoryResult]
    failed: int
    reasons: dict[str, int]
    unchecked: int
    latency_ms_p50: float | None
    latency_ms_mean: float | None
    latency_rows: int

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            **asdict(self.metrics),
            "failed": self.failed,
            "failure_reasons": self.reasons,
            "unchecked": self.unchecked,
            "latency_ms_p50": self.latency_ms_p50,
            "latency_ms_mean": self.latency_ms_mean,
            "latency_rows": self.latency_rows,
            "categories": {name: each.to_dict() for name, each in self.categories.items()},
            "path": self.path,
        }


@dataclass(frozen=True, slots=True)
class Report:
    """How a guard did on several files.

    Attributes:
        guard: The guard's name.
        revision: Which version of its weights judged, where known.
        threshold: The score from which a text counted as called unsafe.
        files: One result per file, in the order they were given.
    """

    guard: str
    revision: str | None
    threshold: float
    files: tuple[FileResult, ...]

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: figures under `files`, by name; absent ones are `null`."""
        return {
            "guard": self.guard,
            "revision": self.revision,
            "threshold": self.threshold,
            "files": {each.name: each.to_dict() for each in self.files},
        }

    def text(self) -> str:
        """Tables for a terminal: the files, then the categories of each."""
        parts = [f"guard {self.guard}, threshold {self.threshold:g}", text_table(*self._files())]
        for each in self.files:
            if each.categories:
                parts.append(f"{each.name} by category")
                parts.append(text_table(*_categories(each)))
        return "\n\n".join([*parts, *self._warnings()])

    def markdown(self) -> str:
        """The table of files in Markdown."""
        return "\n\n".join([markdown_table(*self._files()), *self._warnings()])

    def _files(self) -> tuple[list[str], list[list[str]]]:
        headers = ["data", "rows", *_COLUMNS.values(), "ms, median", "ms, mean"]
        rows = [
            [
                each.name,
                str(each.metrics.n),
                *(_share(getattr(each.metrics, key)) for key in _COLUMNS),
                _time(each.latency_ms_p50),
                _time(each.latency_ms_mean),
            ]
            for each in self.files
        ]
        return headers, rows

    def _warnings(self) -> Iterable[str]:
        for each in self.files:
            if each.failed:
                why = ", ".join(f"{reason} {count}x" for reason, count in each.reasons.items())
                yield (
                    f"{each.name}: {each.failed} of {each.metrics.n} rows could not be judged "
                    f"and count as unsafe ({why})"
                )


def _categories(result: FileResult) -> tuple[list[str], list[list[str]]]:
    headers = ["category", "rows", "called unsafe", *_COLUMNS.values()]
    return headers, [
        [
            name,
            str(each.n),
            _share(each.caught),
            *(_share(getattr(each.own, key)) for key in _COLUMNS),
        ]
        for name, each in result.categories.items()
    ]


def _share(value: float | None) -> str:
    return _ABSENT if value is None else f"{value:.3f}"


def _time(milliseconds: float | None) -> str:
    return _ABSENT if milliseconds is None else f"{milliseconds:.1f}"
