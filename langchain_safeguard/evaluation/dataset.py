"""Reading labelled rows from JSON lines or CSV, plain or gzipped.

One row is one labelled text:

    {"text": str, "unsafe": 0 | 1,                             always
     "side": "input" | "output" | "tool_input" | "tool_output", "input" if left out
     "prompt": str | null,                                     what the text answers
     "categories": [canonical names] | null,                   null: the source names none
     "id": str, "lang": str, "source": str}                    for your own use

Other keys are ignored. In CSV the first line names the columns, an empty cell is null, and
categories are separated by semicolons. A file with a wrong row is not read at all: a figure on the
rest of it would be a figure on something else.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from langchain_safeguard.conversation import Conversation, Turn
from langchain_safeguard.errors import ConfigurationError
from langchain_safeguard.taxonomy import Category, Side, side_of

_JSON = (".jsonl", ".ndjson", ".json")
_CSV = (".csv",)
_GZIP_MAGIC = b"\x1f\x8b"
_LABELS = {
    "0": False,
    "1": True,
    "false": False,
    "true": True,
}
_SHOWN = 5
"""How many wrong rows an error describes."""


class DatasetError(ConfigurationError):
    """A file of rows cannot be read, or has wrong rows; the message names the lines.

    Attributes:
        path: The file.
        lines: The wrong lines, counted from 1; empty if the file as a whole cannot be read.
    """

    def __init__(self, path: Path, problems: list[tuple[int, str]]) -> None:
        """Describe the first few problems; line 0 is the file as a whole."""
        shown = [f"{path}, line {n}: {what}" if n else f"{path}: {what}" for n, what in problems]
        rest = len(shown) - _SHOWN
        more = [f"... and {rest} more wrong rows"] if rest > 0 else []
        super().__init__("\n".join([*shown[:_SHOWN], *more]))
        self.path = path
        self.lines = [number for number, _ in problems if number]


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled text.

    Attributes:
        text: The text that is judged.
        unsafe: Whether it is unsafe.
        side: Who wrote it.
        prompt: What it answers, where it is an answer.
        categories: The hazards in it; `None` where the source names none.
        lang: Its language, where known.
        id: Its name in the source, or its line.
    """

    text: str
    unsafe: bool
    side: Side = "input"
    prompt: str | None = None
    categories: tuple[Category, ...] | None = None
    lang: str | None = None
    id: str = ""

    @property
    def conversation(self) -> Conversation:
        """The text behind what it answers."""
        turns = Conversation.of(self.text, self.side).turns
        return Conversation((*([Turn("user", self.prompt)] if self.prompt else []), *turns))


def read_rows(path: str | Path) -> list[Row]:
    """Read all rows of a file.

    Raises:
        DatasetError: The file cannot be read, is empty, or has wrong rows; each is named with its
            line, the bad value and what is allowed.
    """
    path = Path(path)
    rows: list[Row] = []
    problems: list[tuple[int, str]] = []
    text = file_text(path)
    records = _csv_records(text) if _format(path) in _CSV else json_records(text)
    for line, record in records:
        try:
            if isinstance(record, Exception):
                raise record
            rows.append(_row(record, line))
        except ConfigurationError as error:
            problems.append((line, str(error)))
    if problems:
        raise DatasetError(path, problems)
    if not rows:
        raise DatasetError(path, [(0, "it has no rows")])
    return rows


def dataset_name(path: str | Path) -> str:
    """The file's name without folders and the extensions this module reads."""
    path = Path(path)
    name = path.stem if path.suffix == ".gz" else path.name
    stem = Path(name).stem
    return stem if Path(name).suffix in (*_JSON, *_CSV) else name


def _format(path: Path) -> str:
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if suffix not in (*_JSON, *_CSV):
        allowed = ", ".join([*_JSON, *_CSV])
        raise DatasetError(
            path, [(0, f"unknown extension {suffix!r}; allowed: {allowed}, each also with .gz")]
        )
    return suffix


def file_text(path: Path) -> str:
    """Read a file as text, gunzipped if need be.

    Raises:
        DatasetError: It cannot be read, or its name ends in no known extension.
    """
    _format(path)
    try:
        data = path.read_bytes()
        # By its first bytes, not its name: files are renamed.
        if data.startswith(_GZIP_MAGIC):
            data = gzip.decompress(data)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DatasetError(path, [(0, f"broken gzip: {error}")]) from error
    except OSError as error:
        raise DatasetError(path, [(0, f"cannot be read: {error.strerror or error}")]) from error
    if path.suffix == ".gz" and not data:
        raise DatasetError(path, [(0, "it is empty")])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DatasetError(path, [(line, "it is not UTF-8 text")]) from error


def json_records(text: str) -> Iterator[tuple[int, Any]]:
    """Read JSON lines: each one's number, and its value or what is wrong with it."""
    # Not `splitlines`: it also splits at separators that may stand inside a JSON string.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                reason = getattr(error, "msg", "nested too deeply")
                yield number, ConfigurationError(f"not JSON: {reason}; each line is one object")


def _csv_records(text: str) -> Iterator[tuple[int, Any]]:
    # A cell may hold a whole document; the default limit is 128 KB.
    csv.field_size_limit(2**31 - 1)
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    missing = [name for name in ("text", "unsafe") if name not in (reader.fieldnames or ())]
    if missing:
        found = ", ".join(map(repr, list(reader.fieldnames or ())[:8])) or "nothing"
        yield (
            1,
            ConfigurationError(
                f"no column {missing[0]!r}; the first line must name the columns, among them "
                f"'text' and 'unsafe'; it has {found[:200]}"
            ),
        )
        return
    while True:
        line = reader.reader.line_num + 1  # Where the row begins; a quoted cell may have many.
        try:
            record = next(reader, None)
        except csv.Error as error:
            yield line, ConfigurationError(f"not CSV: {error}")
            return
        if record is None:
            return
        yield line, _cells(record)


def _cells(record: dict[str | Any, Any]) -> dict[str, Any] | ConfigurationError:
    if None in record:
        return ConfigurationError(f"{len(record[None])} more cells than columns")
    if None in record.values():
        short = [name for name, value in record.items() if value is None]
        return ConfigurationError(f"fewer cells than columns; {', '.join(short)} missing")
    cells: dict[str, Any] = {k: v for k, v in record.items() if v != "" or k == "text"}
    if "categories" in cells:
        cells["categories"] = [each.strip() for each in cells["categories"].split(";")]
    return cells


def _row(record: Any, line: int) -> Row:
    if not isinstance(record, Mapping):
        _wrong(f"a row is an object with keys, not {_brief(record)}")
    if not isinstance(record.get("text"), str):
        _wrong(f"text={_brief(record.get('text'))}; allowed: a string")
    label = _LABELS.get(str(record.get("unsafe")).lower())
    if label is None:
        _wrong(f"unsafe={_brief(record.get('unsafe'))}; allowed: 0, 1, false, true")
    side = side_of(record.get("side") or "input")
    prompt = record.get("prompt")
    if prompt is not None and not isinstance(prompt, str):
        _wrong(f"prompt={_brief(prompt)}; allowed: a string or null")
    if prompt and side == "input":
        _wrong("a prompt with side='input'; allowed: a prompt with side='output' or of a tool")
    return Row(
        text=record["text"],
        unsafe=label,
        side=side,
        prompt=prompt or None,
        categories=_categories(record.get("categories")),
        lang=str(record["lang"]) if record.get("lang") else None,
        id=str(record.get("id") or line),
    )


def _categories(value: Any) -> tuple[Category, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        _wrong(f"categories={_brief(value)}; allowed: a list of names or null")
    return tuple(map(Category.of, value))


def _brief(value: object) -> str:
    """A value for an error message: rows hold vile text, and a lot of it."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _wrong(message: str) -> NoReturn:
    raise ConfigurationError(message)
