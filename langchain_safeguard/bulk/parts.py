"""What is done of a file: its parts in a folder beside the file that is to come out.

A part is written under another name and renamed, and only then noted: a process that is killed
leaves whole parts, and a part that was not noted is done again. So no row is lost or stands twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from langchain_safeguard.bulk.rows_file import Chunk, Results, RowsFile
from langchain_safeguard.errors import ConfigurationError, SafeguardError

_NOTES = "done.json"


class Parts:
    """The parts of one file; use it in a `with` statement, which keeps other processes out.

    Args:
        out: The file that is to come out.
        source: The file that is read.
        settings: What must be the same when the work goes on: what judges, and which columns.
        overwrite: Whether to begin anew where something was done, or `out` exists.

    Attributes:
        rows: The rows that are done.

    Raises:
        ConfigurationError: `out` exists, its folder does not, another process is at work on it, or
            what was done was done with other settings.
    """

    def __init__(
        self, out: Path, source: RowsFile, settings: Mapping[str, Any], *, overwrite: bool
    ) -> None:
        """Store."""
        self.rows = 0
        self._out = out
        self._source = source
        self._settings = settings
        self._overwrite = overwrite
        self._folder = out.with_name(f"{out.name}.parts")
        self._lock = FileLock(self._folder / "lock")
        self._count = 0
        self._read = hashlib.sha256()
        self._done = self._read.hexdigest()

    def __enter__(self) -> Parts:
        """Take up what was done."""
        if not self._out.parent.is_dir():
            raise ConfigurationError(f"{self._out}: there is no folder {self._out.parent}")
        if self._out.is_dir():
            raise ConfigurationError(f"{self._out} is a folder; name a file")
        if self._out.exists() and not self._folder.exists() and not self._overwrite:
            raise ConfigurationError(f"{self._out} exists; overwrite it or name another file")
        try:
            self._folder.mkdir(exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            problem = "another process is at work on it"
            raise ConfigurationError(f"{self._out}: {problem}") from None
        except OSError as error:
            raise ConfigurationError(f"{self._folder}: {error.strerror or error}") from None
        try:
            self._take_up()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Let others in; leave nothing behind where nothing was done."""
        if not self._count:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._lock.release()

    def todo(self, chunks: Iterable[Chunk]) -> Iterable[Chunk]:
        """Leave out the rows that are done.

        Raises:
            ConfigurationError: Those rows are not the ones that were done.
        """
        left = self.rows
        for chunk in chunks:
            if left:
                done = min(left, len(chunk))
                self._note(chunk, done)
                left -= done
                if not left:
                    self._check_read()
                chunk = chunk.behind(done)
            if len(chunk):
                yield chunk
        if left:
            self._check_read()

    def add(self, checked: Sequence[tuple[Chunk, Results]]) -> None:
        """Keep rows that were checked.

        Raises:
            SafeguardError: They cannot be written, as when the disk is full.
        """
        part = self._part(self._count)
        unfinished = part.with_suffix(".unfinished")
        with self._writing():
            self._source.write(unfinished, checked, first=not self._count)
            _sync(unfinished)
            unfinished.replace(part)
        for chunk, _ in checked:
            self._note(chunk, len(chunk))
            self.rows += len(chunk)
        self._count += 1
        self._done = self._read.hexdigest()
        with self._writing():
            self._write_notes()

    def finish(self) -> None:
        """Put the file together and remove the parts.

        Raises:
            SafeguardError: It cannot be written.
        """
        if not self._count:
            self.add([])
        whole = self._folder / "whole"
        with self._writing():
            self._source.join([self._part(number) for number in range(self._count)], whole)
            _sync(whole)
            whole.replace(self._out)
        shutil.rmtree(self._folder)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SafeguardError(
                f"{self._out} cannot be written: {error.strerror or error}; {self.rows} rows are "
                "kept, run it again to go on"
            ) from None

    def _take_up(self) -> None:
        notes = self._folder / _NOTES
        if self._overwrite:
            notes.unlink(missing_ok=True)
        if not notes.exists():
            return
        noted = json.loads(notes.read_text(encoding="utf-8"))
        if noted["settings"] != self._settings:
            differs = [k for k, v in self._settings.items() if noted["settings"].get(k) != v]
            raise ConfigurationError(
                f"{self._out} was begun with another {' and '.join(differs)}; go on with the same, "
                "or overwrite it to begin anew"
            )
        self.rows, self._count, self._done = noted["rows"], noted["parts"], noted["digest"]

    def _note(self, chunk: Chunk, rows: int) -> None:
        """Add some rows to what was read."""
        for row in chunk.first(rows):
            self._read.update(repr(row).encode("utf-8", "backslashreplace"))

    def _check_read(self) -> None:
        if self._read.hexdigest() != self._done:
            raise ConfigurationError(
                f"{self._source.path} has changed: its first {self.rows} rows are not those that "
                f"were checked; overwrite {self._out} to begin anew"
            )

    def _write_notes(self) -> None:
        notes = {
            "settings": self._settings,
            "rows": self.rows,
            "parts": self._count,
            "digest": self._done,
        }
        unfinished = self._folder / f"{_NOTES}.unfinished"
        unfinished.write_text(json.dumps(notes), encoding="utf-8")
        _sync(unfinished)
        unfinished.replace(self._folder / _NOTES)

    def _part(self, number: int) -> Path:
        return self._folder / f"{number:09d}.part"


def _sync(path: Path) -> None:
    """Make sure that a file outlives the machine, and not only the process."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
