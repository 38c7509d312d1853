"""JSON lines: a line is extended and not written anew, so that nothing in it changes."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from langchain_safeguard.bulk.rows_file import Chunk, Results, RowError, RowsFile, opened


class JsonLines(RowsFile):
    """One JSON object a line; empty lines are left out."""

    def chunks(self, rows: int) -> Iterator[Chunk]:
        """Read the file."""
        with opened(self.path) as (stream, position):
            lines = self._lines(stream)
            while chunk := [*islice(lines, rows)]:
                columns = {name: [row.get(name) for _, row in chunk] for name in self.columns}
                yield Chunk([line for line, _ in chunk], columns, position())

    def write(self, path: Path, checked: Iterable[tuple[Chunk, Results]], *, first: bool) -> None:
        """Write a part."""
        with path.open("wb") as out:
            for chunk, results in checked:
                for line, result in zip(chunk.raw, results, strict=True):
                    out.write(_extended(line, result))

    def _lines(self, stream: BinaryIO) -> Iterator[tuple[bytes, dict[str, Any]]]:
        number, begun = 0, False
        try:
            for number, line in enumerate(stream, 1):
                line = (line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line).strip()
                if not line:
                    continue
                row = self._row(line, number)
                if begun:
                    self.refuse(row, number)
                else:
                    self.require(row, number)
                    begun = True
                yield line, row
        except (EOFError, zlib.error, OSError) as error:
            raise RowError(self.path, number + 1, f"cannot be read: {error}") from None

    def _row(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            row = json.loads(line.decode())
        except UnicodeDecodeError:
            raise RowError(self.path, number, "it is not UTF-8 text") from None
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", "nested too deeply")
            raise RowError(self.path, number, f"not JSON: {reason}") from None
        if not isinstance(row, dict):
            problem = f"a row is an object with keys, not a {type(row).__name__}"
            raise RowError(self.path, number, problem)
        return row


def _extended(line: bytes, result: Mapping[str, Any]) -> bytes:
    """Put what was found at the end of an object."""
    added = json.dumps(result, ensure_ascii=False).encode("utf-8", "backslashreplace")
    body = line[:-1].rstrip()
    return body + (b"" if body.endswith(b"{") else b", ") + added[1:] + b"\n"
