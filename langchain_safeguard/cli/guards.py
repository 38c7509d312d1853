"""`langchain-safeguard guards`: what `load_guard` knows by name."""

from __future__ import annotations

import argparse
from typing import Any

from langchain_safeguard.loading import list_guards
from langchain_safeguard.tables import text_table


def add_to(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser("guards", help="list the guards that can be loaded by name")
    parser.set_defaults(run=run)


def run(_: argparse.Namespace) -> int:
    """Print the list."""
    rows = [
        [
            card.name,
            ", ".join(card.languages),
            ", ".join(card.sides),
            card.licence,
            card.size,
            card.note,
        ]
        for card in list_guards()
    ]
    print(text_table(["guard", "languages", "sides", "licence", "size", "note"], rows, widest=40))
    return 0
