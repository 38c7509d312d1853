"""A file of rows: read in chunks, written in parts."""

from __future__ import annotations

import gzip
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from langchain_safeguard.bulk.check_batch import ADDED
from langchain_safeguard.errors import ConfigurationError

_GZIP_MAGIC = b"\x1f\x8b"

Results = Sequence[Mapping[str, Any]]
"""What was found for each row of a chunk: a value for each name in `ADDED`."""


class RowError(ConfigurationError):
    """A file of rows cannot be read; the message names the file and the line.

    Attributes:
        path: The file.
        line: The line, counted from 1; `None` if it is about the file as a whole.
    """

    def __init__(self, path: Path, line: int | None, problem: str) -> None:
        """Describe it."""
        super().__init__(
            f"{path}: {problem}" if line is None else f"{path}, line {line}: {problem}"
        )
        self.path = path
        self.line = line


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows that follow each other.

    Attributes:
        raw: The rows in the form in which they are written again: a list, or an Arrow table.
        columns: The values of the columns that were asked for; `None` where a row has none.
        position: How far into the file this is; see `RowsFile.size`.
    """

    raw: Any
    columns: Mapping[str, Sequence[Any]]
    position: int

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.raw)

    def first(self, rows: int) -> list[Any]:
        """Return its first rows, all that is in them."""
        listed: list[Any] = (
            self.raw[:rows] if isinstance(self.raw, list) else self.raw.slice(0, rows).to_pylist()
        )
        return listed

    def behind(self, rows: int) -> Chunk:
        """Return it without its first rows."""
        columns = {name: values[rows:] for name, values in self.columns.items()}
        raw = self.raw[rows:] if isinstance(self.raw, list) else self.raw.slice(rows)
        return Chunk(raw, columns, self.position)


class RowsFile(ABC):
    """A file to read, and how parts of the file that comes out of it are written.

    What a row holds comes out as it went in.

    Args:
        path: The file.
        columns: The columns whose values are wanted.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        """Store."""
        self.path = path
        self.columns = columns

    @property
    def size(self) -> int:
        """Return what `Chunk.position` comes to in the end: here, bytes."""
        return self.path.stat().st_size

    @abstractmethod
    def chunks(self, rows: int) -> Iterator[Chunk]:
        """Read the file, so many rows at a time.

        Raises:
            RowError: A row cannot be read, or the file lacks a column that is wanted, or has one
                that is to be added.
        """

    @abstractmethod
    def write(self, path: Path, checked: Iterable[tuple[Chunk, Results]], *, first: bool) -> None:
        """Write a part.

        Args:
            path: The part.
            checked: Its rows, and what was found.
            first: Whether the file begins with this part.
        """

    def join(self, parts: Sequence[Path], path: Path) -> None:
        """Write one file of all parts, in their order."""
        with path.open("wb") as out:
            for part in parts:
                with part.open("rb") as stream:
                    while block := stream.read(1 << 20):
                        out.write(block)

    def require(self, names: Iterable[str], line: int | None = 1) -> None:
        """Make sure that the columns that are wanted are there, and those to be added are not.

        Raises:
            RowError: They are not, or they are.
        """
        names = [*names]
        for name in self.columns:
            if name not in names:
                found = ", ".join(map(repr, names[:8])) or "none"
                raise RowError(self.path, line, f"no column {name!r}; there are: {found}"[:400])
            if names.count(name) > 1:
                raise RowError(self.path, line, f"it has two columns {name!r}")
        self.refuse(names, line)

    def refuse(self, names: Iterable[str], line: int | None) -> None:
        """Make sure that the columns to be added are not there.

        Raises:
            RowError: One is.
        """
        for name in names:
            if name in ADDED:
                raise RowError(self.path, line, f"it has a column {name!r} already")


@contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, Callable[[], int]]]:
    """Open a file, plain or gzipped, and tell how far into it on the disk one is."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise RowError(path, None, f"cannot be read: {error.strerror or error}") from None
    with file:
        zipped = file.read(2) == _GZIP_MAGIC
        file.seek(0)
        yield (cast(BinaryIO, gzip.GzipFile(fileobj=file)) if zipped else file), file.tell
