"""What to do about what a guard saw: rules per category and side, read top to bottom.

A policy is plain Python objects. A dict or a YAML file is only another spelling of them, read by
`langchain_safeguard.policy_file`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from copy import copy
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from langchain_safeguard.errors import ConfigurationError
from langchain_safeguard.taxonomy import SIDES, Category, Side, side_of
from langchain_safeguard.verdict import Finding, Verdict

DEFAULT_MESSAGE = "I'm sorry, but I can't help with that."


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
        put = object.__setattr__
        put(self, "categories", named)
        put(self, "thresholds", _thresholds(thresholds, action, threshold))
        put(self, "sides", read_sides(sides))
        put(self, "message", message)
        put(self, "rewrite", rewrite)
        put(self, "escalate_to", tuple(_listed(escalate_to)))
        put(self, "name", name or ("all" if named is None else "+".join(sorted(named))))
        if rewrite is None and Action.REWRITE in self.thresholds:
            raise ConfigurationError(f"rule {self.name!r} rewrites, but has no 'rewrite'")

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


@dataclass(frozen=True, slots=True)
class Fired:
    """A rule that fired: on which finding, and what it wants done."""

    rule: Rule
    action: Action
    finding: Finding


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules, read top to bottom, and what holds where none speaks.

    For each finding the first rule that covers its category and the side has the word; over all
    findings the strictest action wins. A finding without a score counts as 1.

    Attributes:
        rules: The rules, the most specific first.
        default: What to do about categories no rule covers.
        threshold: The score from which `default`, and rules without a threshold of their own, act.
        on_failure: What to do when a guard could not judge.
        on_unchecked: What to do when a part, such as an image, was not judged.
        message: The refusal where no rule has its own.
        rewrite_rounds: How often a rewritten text that is still unsafe is rewritten again before
            it is blocked.
        name: What to call it in records.

    Raises:
        ConfigurationError: Something is unknown or out of range; the message says what is allowed.
    """

    rules: tuple[Rule, ...] = ()
    default: Action = Action.BLOCK
    threshold: float = 0.5
    on_failure: Action = Action.BLOCK
    on_unchecked: Action = Action.FLAG
    message: str = DEFAULT_MESSAGE
    rewrite_rounds: int = 1
    name: str = "policy"

    def __post_init__(self) -> None:
        """Check the fields and bring words into their types."""
        put = object.__setattr__
        put(self, "rules", tuple(self.rules))
        for rule in self.rules:
            if not isinstance(rule, Rule):
                raise ConfigurationError(f"a policy's rules are Rule objects, not {rule!r}")
        for key in ("default", "on_failure", "on_unchecked"):
            action = Action.of(getattr(self, key))
            if action is Action.REWRITE:
                raise ConfigurationError(f"{key}='rewrite' has nothing to rewrite with; use a rule")
            put(self, key, action)
        probability("threshold", self.threshold)
        if not isinstance(self.rewrite_rounds, int) or self.rewrite_rounds < 1:
            raise ConfigurationError(f"rewrite_rounds={self.rewrite_rounds!r}; allowed: 1, 2, ...")

    @classmethod
    def default_policy(cls) -> Policy:
        """Return the policy for a public chat application that stands in the package as YAML."""
        return cls.from_file(Path(__file__).with_name("default_policy.yaml"))

    @classmethod
    def of(cls, value: object) -> Policy:
        """Return a policy as it is, or read it from a dict or the path of a YAML file.

        Raises:
            ConfigurationError: It is none of these.
            PolicyError: Something in it is wrong.
        """
        if isinstance(value, Policy):
            return value
        if isinstance(value, str | Path):
            return cls.from_file(value)
        if isinstance(value, Mapping):
            return cls.from_dict(value)
        raise ConfigurationError(f"policy={value!r}; allowed: a Policy, a dict, or a file's path")

    @classmethod
    def from_file(cls, path: str | Path) -> Policy:
        """Read a YAML file.

        Raises:
            PolicyError: It is missing or wrong; the message names the line, the bad value and the
                allowed ones.
        """
        from langchain_safeguard.policy_file import policy_from_file

        return policy_from_file(path)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Policy:
        """Read a dict of the same keys as the YAML file.

        Raises:
            PolicyError: Something is wrong; the message names the bad value and the allowed ones.
        """
        from langchain_safeguard.policy_file import policy_from_dict

        return policy_from_dict(data)

    def rule_for(self, category: Category, side: Side) -> Rule:
        """Return the rule that has the word on a category and side."""
        for rule in self.rules:
            if rule.covers(category, side):
                return rule
        return Rule(action=self.default, name="default")

    def restricted_to(self, categories: Collection[Category]) -> Policy:
        """Return this policy without the categories that nobody reports."""
        unreported = set(Category) - set(categories)
        left = (rule.without(unreported) for rule in self.rules)
        return replace(self, rules=tuple(rule for rule in left if rule is not None))

    def unreported(self, categories: Collection[Category]) -> list[tuple[Rule, Category]]:
        """Return the rules for categories that are not among those reported."""
        return [
            (rule, category)
            for rule in self.rules
            for category in sorted(rule.categories or ())
            if category not in categories
        ]

    def fired(self, verdicts: Collection[Verdict], side: Side) -> list[Fired]:
        """Return the rules that fire on these verdicts, the strictest and riskiest first."""
        fired = [
            Fired(rule, action, finding)
            for verdict in verdicts
            for finding in verdict.findings
            for rule in [self.rule_for(finding.category, side)]
            for action in [self._action(rule, finding)]
            if action is not Action.ALLOW
        ]
        return sorted(fired, key=lambda f: (-f.action.severity, -risk(f.finding)))

    def _action(self, rule: Rule, finding: Finding) -> Action:
        reached = [
            action
            for action, threshold in rule.thresholds.items()
            if risk(finding) >= (self.threshold if threshold is None else threshold)
        ]
        return max(reached, key=lambda action: action.severity, default=Action.ALLOW)

    @property
    def fingerprint(self) -> str:
        """Return a short hash of what decides, the same in every process."""
        facts: list[object] = [self.default, self.threshold, self.on_failure, self.on_unchecked]
        for rule in self.rules:
            facts += [sorted(rule.categories or ()), sorted(rule.sides), dict(rule.thresholds)]
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def risk(finding: Finding) -> float:
    """Return a finding's score; a guard that gives no number means that it is sure."""
    return 1.0 if finding.score is None else finding.score


def probability(name: str, value: object) -> float:
    """Check that `value` is a number in [0, 1].

    Raises:
        ConfigurationError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ConfigurationError(f"{name}={value!r}; allowed: a number from 0 to 1")
    return float(value)


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
    return (value,) if isinstance(value, str) else value
