"""Labelled rows: reading them, turning labels into targets, and holding some out.

The schema is one JSON object a line, plain or gzip: `id`, `source`, `lang`, `side`, `prompt`,
`text`, `unsafe`, `categories` (null where the source names none) and `split_group`.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from langchain_safeguard.embedded.labels import ATTACKS, HARM_CATEGORIES, OUTPUTS

HELD_OUT_SOURCES = frozenset({"oasst", "spikee_fp", "dangerousqa", "certified_safe"})
"""Never trained on: what they are scored tells how the guard meets a source it has not seen."""


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled text. `file` is the stem of the file it was read from."""

    file: str
    source: str
    language: str
    side: str
    prompt: str | None
    text: str
    unsafe: bool
    categories: tuple[str, ...] | None
    group: str

    @property
    def korean(self) -> bool:
        """Whether the row counts as Korean in reports."""
        return self.language == "ko"


def read_rows(path: Path) -> Iterator[Row]:
    """Read one file of rows.

    Raises:
        ValueError: A line is not JSON or lacks a field; the message names file and line.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    name = path.name.split(".")[0]
    with opener(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield _row(name, json.loads(line))
            except (KeyError, TypeError, ValueError) as error:
                msg = f"{path}, line {number}: not a labelled row ({error!r})"
                raise ValueError(msg) from error


def _row(name: str, fields: dict[str, object]) -> Row:
    text, categories = str(fields["text"]), fields.get("categories")
    prompt = fields.get("prompt")
    return Row(
        file=name,
        source=str(fields.get("source") or name),
        language=str(fields.get("lang") or "en"),
        side=str(fields.get("side") or "input"),
        prompt=None if prompt is None else str(prompt),
        text=text,
        unsafe=bool(fields["unsafe"]),
        categories=None if categories is None else tuple(str(c) for c in categories),  # type: ignore[attr-defined]
        group=str(fields.get("split_group") or text),
    )


def read_folder(folder: Path) -> list[Row]:
    """Read every `*.jsonl` and `*.jsonl.gz` below `folder`, except in folders named `dev`.

    Raises:
        FileNotFoundError: There is no such file.
    """
    paths = sorted([*folder.rglob("*.jsonl"), *folder.rglob("*.jsonl.gz")])
    paths = [path for path in paths if "dev" not in path.relative_to(folder).parts]
    if not paths:
        msg = f"No .jsonl or .jsonl.gz files below {folder}"
        raise FileNotFoundError(msg)
    return [row for path in paths for row in read_rows(path) if usable(row)]


def usable(row: Row) -> bool:
    """Whether a row's label says what we mean by it.

    EDOS asks only whether a text is sexist: what is not may be hateful in another way.
    """
    return row.unsafe or row.file != "edos"


def targets(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    """Targets and masks, both float32 of shape (rows, outputs).

    A mask of 0 says that the source is silent: an attack does not say whether its payload is
    harmful, an unsafe row without categories does not say which.
    """
    truth = np.zeros((len(rows), len(OUTPUTS)), dtype=np.float32)
    known = np.ones_like(truth)
    place = {name: index for index, name in enumerate(OUTPUTS)}
    harms = slice(1, 1 + len(HARM_CATEGORIES))
    for index, row in enumerate(rows):
        if not row.unsafe:
            continue
        named = [name for name in row.categories or () if name in place]
        for name in named:
            truth[index, place[name]] = 1.0
        attacks = [name for name in named if name in ATTACKS]
        if len(named) > len(attacks) or not named:
            truth[index, 0] = 1.0
            known[index, harms] = float(bool(named))
        else:
            known[index, 0] = 0.0
            known[index, harms] = 0.0
        if attacks:
            # Sources disagree about the border between the two attacks.
            for name in ATTACKS:
                known[index, place[name]] = float(name in attacks)
    return truth, known


def held_out(row: Row, share: float = 0.08) -> bool:
    """Whether `row` belongs to validation: whole sources, and whole groups of the others."""
    if row.source in HELD_OUT_SOURCES or row.file in HELD_OUT_SOURCES:
        return True
    digest = hashlib.sha256(row.group.encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:4], "big") / 2**32 < share
