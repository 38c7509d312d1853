"""Checking a file of any size, row by row, in little memory; it goes on where it was stopped."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm  # type: ignore[import-untyped]

from langchain_safeguard.bulk.check_batch import CheckBatch
from langchain_safeguard.bulk.csv_rows import CsvRows
from langchain_safeguard.bulk.json_lines import JsonLines
from langchain_safeguard.bulk.parts import Parts
from langchain_safeguard.bulk.rows_file import Chunk, Results, RowsFile
from langchain_safeguard.errors import ConfigurationError
from langchain_safeguard.guards.base import Guard
from langchain_safeguard.policy import Policy
from langchain_safeguard.taxonomy import Side

_PART_S = 20.0
"""The seconds of work that a killed process may lose."""

_BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
_SUFFIXES = (".jsonl", ".ndjson", ".csv", ".parquet")


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did.

    Attributes:
        rows: The rows in the file.
        resumed: How many of them an earlier run had done.
        actions: How many rows of this run had which action.
        failed: How many rows of this run no guard could judge.
    """

    rows: int
    resumed: int
    actions: Mapping[str, int] = field(default_factory=dict)
    failed: int = 0


def check_file(
    path: str | Path,
    out: str | Path,
    *,
    guard: str | Path | Guard | Sequence[str | Path | Guard] | None = None,
    policy: Policy | Mapping[str, Any] | str | Path | None = None,
    side: Side = "input",
    text_column: str = "text",
    prompt_column: str | None = None,
    batch_size: int = 64,
    part_rows: int = 8192,
    overwrite: bool = False,
    progress: bool = False,
) -> Summary:
    """Add a decision to each row of a file of JSON lines, CSV or Parquet.

    Run it again after it was stopped or killed, and it goes on: no row is lost or stands twice.
    What is done meanwhile is in a folder beside `out`, which appears when all is done.

    Args:
        path: The file; JSON lines and CSV may be gzipped.
        out: The file to write, in the same format.
        guard: What judges; see `Safeguard`.
        policy: What to do about what it sees; see `Safeguard`.
        side: Who wrote the texts.
        text_column: The column with the texts; in JSON a text may also be a list of messages.
        prompt_column: The column with what the texts answer.
        batch_size: How many rows are judged at once.
        part_rows: After how many rows, at the latest, they are written. A killed process loses no
            more than these, and no more than the work of twenty seconds.
        overwrite: Whether to begin anew where `out` exists or was begun.
        progress: Whether to show a progress bar.

    Returns:
        What was done. The columns that are added are named in `langchain_safeguard.bulk`.

    Raises:
        ConfigurationError: A value is wrong, a row cannot be read (the message names its line, and
            the rows before it are kept), `out` exists, or it was begun with other settings or from
            other rows.
        SafeguardError: It cannot be written, as when the disk is full.
    """
    for option, value in (("batch_size", batch_size), ("part_rows", part_rows)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigurationError(f"{option}={value!r}; allowed: 1, 2, ...")
    path, out = Path(path), Path(out)
    columns = [text_column, *([prompt_column] if prompt_column else [])]
    source = _rows_file(path, out, columns)
    check = CheckBatch(
        guard, policy, side=side, text_column=text_column, prompt_column=prompt_column
    )
    with Parts(out, source, _settings(check), overwrite=overwrite) as parts:
        resumed, work = parts.rows, _Work(parts, part_rows)
        with tqdm(total=source.size, desc=path.name, disable=not progress, bar_format=_BAR) as bar:
            try:
                for chunk in parts.todo(source.chunks(batch_size)):
                    results = check.results(*(chunk.columns[name] for name in columns))
                    work.add(chunk, results)
                    bar.set_postfix_str(f"rows={parts.rows + work.rows}", refresh=False)
                    bar.update(chunk.position - bar.n)
            finally:
                work.keep()
        parts.finish()
        return Summary(parts.rows, resumed, dict(work.actions), work.failed)


class _Work:
    """Rows that are checked and not yet in a part."""

    def __init__(self, parts: Parts, most: int) -> None:
        self.actions: Counter[str] = Counter()
        self.failed = 0
        self.rows = 0
        self._parts = parts
        self._most = most
        self._checked: list[tuple[Chunk, Results]] = []
        self._begun = time.monotonic()

    def add(self, chunk: Chunk, results: Results) -> None:
        self._checked.append((chunk, results))
        self.rows += len(chunk)
        self.actions.update(result["safeguard_action"] for result in results)
        self.failed += sum(result["safeguard_failed"] for result in results)
        if self.rows >= self._most or time.monotonic() - self._begun > _PART_S:
            self.keep()

    def keep(self) -> None:
        if self._checked:
            self._parts.add(self._checked)
        self._checked, self.rows, self._begun = [], 0, time.monotonic()


def _settings(check: CheckBatch) -> dict[str, Any]:
    return {
        "guard": [[guard.name, guard.revision] for guard in check.safeguard.guards],
        "policy": check.safeguard.policy.fingerprint,
        "side": check.side,
        "columns": [*check.columns],
    }


def _rows_file(path: Path, out: Path, columns: Sequence[str]) -> RowsFile:
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if suffix not in _SUFFIXES or (suffix == ".parquet" and path.suffix == ".gz"):
        raise ConfigurationError(
            f"{path}: unknown extension; allowed: {', '.join(_SUFFIXES)}, all but the last also "
            "with .gz"
        )
    if not path.is_file():
        raise ConfigurationError(f"{path}: there is no such file")
    if out.suffix != suffix:
        raise ConfigurationError(f"{out}: what is read from {path} is written to a {suffix} file")
    if path.resolve() == out.resolve():
        raise ConfigurationError(f"{out}: it is the file that is read")
    if suffix == ".csv":
        return CsvRows(path, columns)
    if suffix == ".parquet":
        # Imported late: pyarrow is an extra.
        from langchain_safeguard.bulk.parquet import Parquet

        return Parquet(path, columns)
    return JsonLines(path, columns)
