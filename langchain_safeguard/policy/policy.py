"""What to do about what a guard saw: rules per category and side, read top to bottom.

A policy is plain Python objects. A dict or a YAML file is only another spelling of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from langchain_safeguard.errors import ConfigurationError
from langchain_safeguard.policy.file import read_dict, read_file
from langchain_safeguard.policy.rule import Action, Rule, probability
from langchain_safeguard.taxonomy import Category, Side
from langchain_safeguard.verdict import Finding, Verdict

DEFAULT_MESSAGE = "I'm sorry, but I can't help with that."


@dataclass(frozen=True, slots=True)
class Fired:
    """A rule that fired: on which finding, and what it wants done."""

    rule: Rule
    action: Action
    finding: Finding


@dataclass(frozen=True, slots=True, init=False)
class Policy:
    """Rules, read top to bottom, and what holds where none speaks.

    For each finding the first rule that covers its category and the side has the word; over all
    findings the strictest action wins. A finding without a score counts as 1.

    Args:
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

    rules: tuple[Rule, ...]
    default: Action
    threshold: float
    on_failure: Action
    on_unchecked: Action
    message: str
    rewrite_rounds: int
    name: str

    def __init__(
        self,
        rules: Iterable[Rule] = (),
        default: str = Action.BLOCK,
        threshold: float = 0.5,
        on_failure: str = Action.BLOCK,
        on_unchecked: str = Action.FLAG,
        message: str = DEFAULT_MESSAGE,
        rewrite_rounds: int = 1,
        name: str = "policy",
    ) -> None:
        """Check the values and bring words into their types."""
        put = object.__setattr__
        if isinstance(rules, str | Mapping) or not isinstance(rules, Iterable):
            raise ConfigurationError(f"rules={rules!r}; allowed: a list of rules")
        put(self, "rules", tuple(rules))
        for rule in self.rules:
            if not isinstance(rule, Rule):
                raise ConfigurationError(f"a policy's rules are Rule objects, not {rule!r}")
        actions = {"default": default, "on_failure": on_failure, "on_unchecked": on_unchecked}
        for key, word in actions.items():
            action = Action.of(word)
            if action is Action.REWRITE:
                raise ConfigurationError(f"{key}='rewrite' has nothing to rewrite with; use a rule")
            put(self, key, action)
        put(self, "threshold", probability("threshold", threshold))
        if type(rewrite_rounds) is not int or rewrite_rounds < 1:
            raise ConfigurationError(f"rewrite_rounds={rewrite_rounds!r}; allowed: 1, 2, ...")
        put(self, "rewrite_rounds", rewrite_rounds)
        for key, text in {"message": message, "name": name}.items():
            if not isinstance(text, str):
                raise ConfigurationError(f"{key}={text!r}; allowed: a text")
            put(self, key, text)

    @classmethod
    def default_policy(cls) -> Policy:
        """Return the policy for a public chat application that stands in the package as YAML."""
        return cls.from_file(Path(__file__).with_name("default.yaml"))

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
        return read_file(path, cls)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Policy:
        """Read a dict of the same keys as the YAML file.

        Raises:
            PolicyError: Something is wrong; the message names the bad value and the allowed ones.
        """
        return read_dict(data, cls)

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
