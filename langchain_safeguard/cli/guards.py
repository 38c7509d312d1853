"""`langchain-safeguard guards`: what `load_guard` knows by name."""

from __future__ import annotations

import argparse
from typing import Any

from langchain_safeguard.errors import ConfigurationError
from langchain_safeguard.guards import GuardCard
from langchain_safeguard.loading import list_guards
from langchain_safeguard.tables import text_table
from langchain_safeguard.taxonomy import SIDES


def add_to(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser("guards", help="list the guards that can be loaded by name")
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="show all there is to know about one of them"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the list, or one guard."""
    if arguments.name is None:
        print(_list(list_guards()))
        return 0
    for card in list_guards():
        if card.name == arguments.name:
            print(_one(card))
            return 0
    raise ConfigurationError.unknown("guard", arguments.name, [card.name for card in list_guards()])


def _list(cards: tuple[GuardCard, ...]) -> str:
    headers = ["guard", "languages", "sides", "categories", "licence", "size", "note"]
    rows = [
        [
            card.name,
            _several(card.languages),
            "all" if set(card.sides) == set(SIDES) else ", ".join(card.sides),
            str(len(card.categories)),
            _licence(card),
            card.size,
            card.note,
        ]
        for card in cards
    ]
    return text_table(headers, rows, widest=44)


def _one(card: GuardCard) -> str:
    rows = [
        ["guard", card.name],
        ["languages", ", ".join(card.languages)],
        ["sides", ", ".join(card.sides)],
        ["categories", ", ".join(sorted(card.categories))],
        ["licence", _licence(card)],
        ["size", card.size],
        ["loaded in", card.quantization or "the precision of its checkpoint"],
        *([["adapts", card.base_model]] if card.base_model else []),
        *([["note", card.note]] if card.note else []),
    ]
    return text_table(["", ""], rows, widest=80).partition("\n")[2].partition("\n")[2]


def _several(languages: tuple[str, ...]) -> str:
    return ", ".join(languages) if len(languages) <= 3 else f"{len(languages)}: {languages[0]}, ..."


def _licence(card: GuardCard) -> str:
    return f"{card.licence} (gated)" if card.gated else card.licence
