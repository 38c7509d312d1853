"""Which kind of guard a model is: by its name, or by what its folder holds."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langchain_safeguard.errors import ConfigurationError
from langchain_safeguard.guards.card import GuardCard
from langchain_safeguard.guards.catalogue import CARDS
from langchain_safeguard.guards.family import Family


def known_card(name: str | Path, family: Family[Any, Any] | str | None) -> GuardCard | None:
    """Find a card by the given kind, or by the last part of an id or folder; `None` if unknown.

    Raises:
        ConfigurationError: The kind is unknown.
    """
    if isinstance(family, Family):
        return None
    if family == "embedded":
        raise ConfigurationError(
            "family='embedded': only the embedded guard itself is of that kind"
        )
    wanted = str(family) if family is not None else str(name)
    for card in CARDS:
        if card.name.lower() == wanted.lower():
            return card
    if family is not None:
        raise ConfigurationError(f"family={family!r}; allowed: a Family, or one of {known_names()}")
    last = Path(wanted).name.lower()
    for card in CARDS:
        if card.name.rpartition("/")[2].lower() == last:
            return card
    return None


def recognised_card(checkpoint: Any) -> GuardCard | None:
    """Find a card by what a folder holds, an `engines.checkpoint.Checkpoint`."""
    for card in CARDS:
        if card.classifier:
            # Their order does not matter: the names come with the scores.
            if card.labels and {*card.labels} == {*checkpoint.labels}:
                return card
        elif card.signs and all(sign in (checkpoint.template or "") for sign in card.signs):
            return card
    return None


def family_of(card: GuardCard, checkpoint: Any, options: Mapping[str, Any]) -> Family[Any, Any]:
    """Make the family of a card's model, with the chat template of its checkpoint.

    Raises:
        ConfigurationError: It has no such option.
    """
    given = {**card.options, **options}
    allowed = inspect.signature(card.family).parameters
    for option in options:
        if option not in allowed:
            raise ConfigurationError.unknown(f"option of guard {card.name!r}:", option, allowed)
    if not isinstance(given.get("template", ""), str):
        raise ConfigurationError(f"template={given['template']!r}; allowed: a text")
    if not card.classifier and checkpoint.template is not None:
        given.setdefault("template", checkpoint.template)
    return card.family(**given)


def known_names() -> str:
    """Return the names of all cards, for messages."""
    return ", ".join(repr(card.name) for card in CARDS)
