"""CSV: the first line names the columns; lists are joined by semicolons."""

from __future__ import annotations

import csv
import io
import zlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from langchain_safeguard.bulk.check_batch import ADDED
from langchain_safeguard.bulk.rows_file import Chunk, Results, RowError, RowsFile, opened


class CsvRows(RowsFile):
    """Comma-separated values in UTF-8."""

    header: list[str]

    def chunks(self, rows: int) -> Iterator[Chunk]:
        """Read the file."""
        with opened(self.path) as (stream, position):
            text = io.TextIOWrapper(stream, "utf-8-sig", newline="")
            cells = self._cells(text)
            self.header = next(cells, [])
            if not self.header:
                raise RowError(self.path, None, "it is empty; its first line names the columns")
            if len(self.header) == 1 and {*self.columns}.isdisjoint(self.header):
                other = next((mark for mark in ";\t|" if mark in self.header[0]), None)
                if other is not None:
                    problem = f"its columns are separated by {other!r}; allowed: ','"
                    raise RowError(self.path, 1, problem)
            self.require(self.header)
            places = {name: self.header.index(name) for name in self.columns}
            while chunk := [*islice(cells, rows)]:
                columns = {name: [row[at] for row in chunk] for name, at in places.items()}
                yield Chunk(chunk, columns, position())

    def write(self, path: Path, checked: Iterable[tuple[Chunk, Results]], *, first: bool) -> None:
        """Write a part; only the first has the header."""
        # Odd characters in a text are no reason to lose its row.
        with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as out:
            writer = csv.writer(out, lineterminator="\n")
            if first:
                writer.writerow([*self.header, *ADDED])
            for chunk, results in checked:
                for row, result in zip(chunk.raw, results, strict=True):
                    writer.writerow([*row, *(_cell(result[name]) for name in ADDED)])

    def _cells(self, text: TextIO) -> Iterator[list[str]]:
        # A cell may hold a whole document; the default limit is 128 KB.
        csv.field_size_limit(2**31 - 1)
        reader = csv.reader(text, strict=True)
        width = None
        while True:
            line = reader.line_num + 1  # Where the row begins; a quoted cell may have many.
            try:
                row = next(reader, None)
            except UnicodeDecodeError:
                problem = "it is not UTF-8 text; convert it, as with iconv -t UTF-8"
                raise RowError(self.path, line, problem) from None
            except (csv.Error, EOFError, zlib.error, OSError) as error:
                raise RowError(self.path, line, f"cannot be read: {error}") from None
            if row is None:
                return
            if not row:
                continue
            width = width or len(row)
            if len(row) != width:
                raise RowError(self.path, line, f"{len(row)} cells in {width} columns")
            yield row


def _cell(value: Any) -> Any:
    return ";".join(value) if isinstance(value, list) else value
