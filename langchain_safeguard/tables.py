"""Tables of text, for terminals and for Markdown."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Sequence
from itertools import zip_longest

Rows = Sequence[Sequence[str]]


def text_table(headers: Sequence[str], rows: Rows, *, widest: int = 60) -> str:
    """Lay out a table for a terminal.

    Args:
        headers: The names of the columns.
        rows: The cells of each row, as many as there are headers.
        widest: The most letters a line of a cell may have; longer cells are wrapped.
    """
    wrapped = [[_wrapped(cell, widest) for cell in row] for row in rows]
    lines = [list(row) for cells in wrapped for row in zip_longest(*cells, fillvalue="")]
    columns = zip(headers, *lines, strict=True)
    widths = [max(map(_width, column)) for column in columns]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "  ".join(map(_padded, line, widths)).rstrip() for line in [list(headers), rule, *lines]
    )


def markdown_table(headers: Sequence[str], rows: Rows) -> str:
    """Lay out a table in Markdown; every column but the first is aligned to the right."""
    rule = ["---", *["---:"] * (len(headers) - 1)]
    return "\n".join(f"| {' | '.join(map(_escaped, row))} |" for row in [headers, rule, *rows])


def _wrapped(cell: str, widest: int) -> list[str]:
    return textwrap.wrap(cell, widest, break_on_hyphens=False) or [""]


def _width(text: str) -> int:
    """How many columns a terminal needs: Korean letters take two."""
    return sum(1 + (unicodedata.east_asian_width(letter) in "WF") for letter in text)


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _width(text))


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
