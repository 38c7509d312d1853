"""One rule: what to do about some categories on some sides."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from copy import copy
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from langchain_safeguard.errors import ConfigurationError
from langchain_safeguard.rewriters import as_rewriter
from langchain_safeguard.taxonomy import SIDES, Category, Side, side_of


class Action(StrEnum):
    """What can become of a text, from the mildest to the strictest."""

    ALLOW = "allow"
    FLAG = "flag"
    REWRITE = "rewrite"
    ESCALATE = "escalate"
    BLOCK = "block"

    @classmethod
    def of(cls, name: str) -> Action:
        """Look an action up by name.

        Raises:
            ConfigurationError: There is none of that name; the message lists the allowed ones.
        """
        for action in cls:
            if action.value == name:
                return action
        raise ConfigurationError.unknown("action", name, cls)

    @property
    def severity(self) -> int:
        """Return the place in the order; the strictest action that fires wins."""
        return list(Action).index(self)

    @property
    def passes(self) -> bool:
        """Tell whether the text goes on unchanged."""
        return self in (Action.ALLOW, Action.FLAG)


@dataclass(frozen=True, slots=True, init=False)
class Rule:
    """What to do about some categories on some sides.

    Args:
        categories: The categories it speaks of; `None` means every category.
        action: What to do from `threshold` on.
        threshold: The score in [0, 1] from which `action` is taken; `None` means the policy's.
        thresholds: Instead of `action` and `threshold`: several actions with a threshold each, for
            grey zones. The strictest one whose threshold is reached is taken.
        sides: The sides on which it speaks.
        message: The refusal when it blocks; `None` means the policy's.
        rewrite: How to rewrite: a replacement text, a `{"redact": [...]}` dict, or any callable or
            Runnable from text to text.
        escalate_to: Names of the `Safeguard`'s handlers, asked in this order; empty means all.
        name: What to call it in decisions and records; made up from the categories if left out.

    Raises:
        ConfigurationError: Something is unknown or out of range; the message says what is allowed.
    """

    categories: frozenset[Category] | None
    thresholds: Mapping[Action, float | None]
    sides: frozenset[Side]
    message: str | None
    rewrite: Any
    escalate_to: tuple[str, ...]
    name: str

    def __init__(
        self,
        categories: Collection[str] | str | None = None,
        action: str | None = None,
        threshold: float | None = None,
        *,
        thresholds: Mapping[str, float] | None = None,
        sides: Collection[str] | str = SIDES,
        message: str | None = None,
        rewrite: Any = None,
        escalate_to: Collection[str] | str = (),
        name: str | None = None,
    ) -> None:
        """Check and store."""
        if thresholds is not None and (action is not None or threshold is not None):
            raise ConfigurationError("a rule has either 'thresholds' or 'action' and 'threshold'")
        named = None if categories is None else read_categories(categories)
        words("message", message)
        words("name", name)
        put = object.__setattr__
        put(self, "categories", named)
        put(self, "thresholds", _thresholds(thresholds, action, threshold))
        put(self, "sides", read_sides(sides))
        put(self, "message", message)
        put(self, "rewrite", rewrite)
        put(self, "escalate_to", read_names(escalate_to))
        put(self, "name", name or ("all" if named is None else "+".join(sorted(named))))
        if rewrite is None and Action.REWRITE in self.thresholds:
            raise ConfigurationError(f"rule {self.name!r} rewrites, but has no 'rewrite'")
        if rewrite is not None:
            as_rewriter(rewrite)
            if Action.REWRITE not in self.thresholds:
                raise ConfigurationError(
                    f"rule {self.name!r} has 'rewrite', but never rewrites; give it the action "
                    "'rewrite'"
                )

    def covers(self, category: Category, side: Side) -> bool:
        """Tell whether it speaks of this category on this side."""
        return side in self.sides and (self.categories is None or category in self.categories)

    def without(self, categories: Collection[Category]) -> Rule | None:
        """Return the rule without these categories; `None` if nothing is left."""
        if self.categories is None:
            return self
        left = self.categories - set(categories)
        rule = copy(self)
        object.__setattr__(rule, "categories", left)
        return rule if left else None


def probability(name: str, value: object) -> float:
    """Check that `value` is a number in [0, 1].

    Raises:
        ConfigurationError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ConfigurationError(f"{name}={value!r}; allowed: a number from 0 to 1")
    return float(value)


def words(name: str, value: object) -> None:
    """Check that `value` is a text or `None`.

    Raises:
        ConfigurationError: It is not.
    """
    if value is not None and not isinstance(value, str):
        raise ConfigurationError(f"{name}={value!r}; allowed: a text")


def read_names(names: Collection[str] | str) -> tuple[str, ...]:
    """Read one name or several.

    Raises:
        ConfigurationError: They are no names.
    """
    listed = tuple(_listed(names))
    if not all(isinstance(name, str) for name in listed):
        raise ConfigurationError(f"{names!r} is no name or list of names")
    return listed


def read_categories(names: Collection[str] | str) -> frozenset[Category]:
    """Read one category or several.

    Raises:
        ConfigurationError: One is unknown, or there is none.
    """
    categories = frozenset(map(Category.of, _listed(names)))
    if not categories:
        raise ConfigurationError("categories=[]; name some, or leave the key out to mean all")
    return categories


def read_sides(names: Collection[str] | str) -> frozenset[Side]:
    """Read one side or several.

    Raises:
        ConfigurationError: One is unknown, or there is none.
    """
    sides = frozenset(map(side_of, _listed(names)))
    if not sides:
        raise ConfigurationError(f"sides=[]; allowed: {', '.join(SIDES)}")
    return sides


def read_thresholds(thresholds: Mapping[str, float]) -> dict[Action, float | None]:
    """Read a mapping from action to score.

    Raises:
        ConfigurationError: It is no mapping or empty, or holds an unknown action or a bad number.
    """
    if not isinstance(thresholds, Mapping) or not thresholds:
        raise ConfigurationError(
            f"thresholds={thresholds!r}; allowed: a mapping from action to a number from 0 to 1"
        )
    return {
        Action.of(action): probability(f"thresholds.{action}", value)
        for action, value in thresholds.items()
    }


def _thresholds(
    thresholds: Mapping[str, float] | None, action: str | None, threshold: float | None
) -> dict[Action, float | None]:
    if thresholds is not None:
        return read_thresholds(thresholds)
    return {
        Action.of(action or Action.BLOCK): None
        if threshold is None
        else probability("threshold", threshold)
    }


def _listed(value: Collection[str] | str) -> Collection[str]:
    if isinstance(value, Mapping) or not isinstance(value, Collection):
        raise ConfigurationError(f"{value!r} is no name or list of names")
    return (value,) if isinstance(value, str) else value
