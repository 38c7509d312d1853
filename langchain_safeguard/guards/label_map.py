"""What the labels of a text classifier mean: a hazard, several, or none."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TypeAlias

from langchain_safeguard.errors import ConfigurationError
from langchain_safeguard.policy import read_categories, read_sides
from langchain_safeguard.taxonomy import Category, Side, side_of

Meaning: TypeAlias = Category | str | Collection[Category | str] | None
"""What a label stands for, as users write it: a category, several, or `None` for harmless."""

_HARMLESS = re.compile(
    r"(safe|benign|ok|okay|clean|neutral|normal|legit|legitimate|harmless|acceptable|none"
    r"|(not?|non|un)[ ]?(toxic|hate|hateful|harmful|offensive|abusive|spam|unsafe|hap|nsfw|harm"
    r"|injection|jailbreak|malicious|profane|flagged))",
    re.IGNORECASE,
)


class LabelMap:
    """From label to categories, on each side.

    Labels match whatever their case, and whether their words are joined by blanks, `_` or `-`. A
    label that nobody named is harmless if its name says so, such as `"neutral"` or `"not_toxic"`;
    otherwise it is a hazard: `other`.

    Args:
        labels: From label to what it stands for.
        benign: More labels that stand for no hazard.
        by_side: What differs on a side.
        sides: The sides on which the classifier judges.

    Raises:
        ConfigurationError: Something is unknown or contradicts itself; the message says what is
            allowed.
    """

    def __init__(
        self,
        labels: Mapping[str, Meaning],
        *,
        benign: Collection[str] | str,
        by_side: Mapping[str, Mapping[str, Meaning]] | None,
        sides: Collection[str] | str,
    ) -> None:
        """Check and store."""
        self.sides = read_sides(_listed("sides", sides))
        harmless = _listed("benign", benign)
        table = _table("labels", labels)
        self._table = table | _table("benign", dict.fromkeys(harmless))
        for label in harmless:
            if table.get(_folded(label)):
                raise ConfigurationError(f"label {label!r} is in benign and has a category, too")
        self._names = {_folded(label): label for label in [*labels, *harmless]}
        self._by_side: dict[Side, dict[str, tuple[Category, ...]]] = {}
        for name, differing in _mapping("by_side", by_side or {}).items():
            side = side_of(name)
            if side not in self.sides:
                allowed = ", ".join(sorted(self.sides))
                raise ConfigurationError(f"by_side: {name!r} is not in sides; allowed: {allowed}")
            self._by_side[side] = _table(f"by_side, {name}", differing)
            self._names |= {_folded(label): str(label) for label in _mapping("by_side", differing)}
        if not any(self._named()):
            raise ConfigurationError(
                f"labels={dict(labels)}; name a category for at least one label"
            )

    @property
    def categories(self) -> frozenset[Category]:
        """Return all that can be reported."""
        return frozenset({Category.OTHER}.union(*self._named()))

    def meaning(self, label: str, side: Side) -> tuple[Category, ...]:
        """Return the categories of a label on a side; none if it is harmless there."""
        folded = _folded(label)
        for table in (self._by_side.get(side, {}), self._table):
            if folded in table:
                return table[folded]
        return () if _HARMLESS.fullmatch(folded) else (Category.OTHER,)

    def missing(self, labels: Collection[str]) -> list[str]:
        """Return the labels that are named here, but are none of these."""
        known = set(map(_folded, labels))
        return [name for folded, name in self._names.items() if folded not in known]

    def _named(self) -> list[tuple[Category, ...]]:
        return [
            categories
            for table in (self._table, *self._by_side.values())
            for categories in table.values()
        ]


def _table(what: str, labels: object) -> dict[str, tuple[Category, ...]]:
    table: dict[str, tuple[Category, ...]] = {}
    for label, meaning in _mapping(what, labels).items():
        if not isinstance(label, str) or not label.strip():
            # YAML reads an unquoted `no` as a boolean and `0` as a number.
            raise ConfigurationError(f"{what}: label {label!r} is no text; put it into quotes")
        if _folded(label) in table:
            raise ConfigurationError(f"{what}: label {label!r} stands twice")
        table[_folded(label)] = _categories(what, label, meaning)
    return table


def _categories(what: str, label: str, meaning: object) -> tuple[Category, ...]:
    if meaning is None:
        return ()
    if not isinstance(meaning, str | list | tuple | set | frozenset):
        raise ConfigurationError(
            f"{what}: label {label!r} has {meaning!r}; allowed: a category, a list of them, or "
            "nothing for a harmless label"
        )
    try:
        return tuple(sorted(read_categories(meaning)))
    except ConfigurationError as error:
        raise ConfigurationError(f"{what}: label {label!r}: {error}") from None


def _listed(what: str, value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list | tuple | set | frozenset):
        raise ConfigurationError(f"{what}={value!r}; allowed: a text or a list of texts")
    return [*value]


def _mapping(what: str, value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{what}={value!r}; allowed: a mapping")
    return value


def _folded(label: str) -> str:
    return re.sub(r"[\s_-]+", " ", label).strip().casefold()
