"""Policies spelled as a dict or as YAML, with the line of whatever is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml

from langchain_safeguard.errors import ConfigurationError, PolicyError
from langchain_safeguard.policy.rule import (
    Action,
    Rule,
    probability,
    read_categories,
    read_names,
    read_sides,
    read_thresholds,
)
from langchain_safeguard.rewriters import as_rewriter

T = TypeVar("T")

Place = tuple[str | int, ...]
"""Where a value stands: the keys and list positions that lead to it."""


def read_file(path: str | Path, make: Callable[..., T]) -> T:
    """Read a YAML file and make a policy of it; see `Policy.from_file`."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise PolicyError(f"cannot read it: {reason}", path=str(path)) from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "bad syntax"
        line = mark.line + 1 if mark else None
        raise PolicyError(f"not YAML: {problem}", path=str(path), line=line) from error
    lines: dict[Place, int] = {}
    for place, key_line in _lines(node, ()):
        if place in lines:
            message = f"key {place[-1]!r} stands twice"
            raise PolicyError(message, path=str(path), line=key_line)
        lines[place] = key_line
    return _Reader(str(path), lines).policy({} if data is None else data, make)


def read_dict(data: Mapping[str, Any], make: Callable[..., T]) -> T:
    """Read a dict and make a policy of it; see `Policy.from_dict`."""
    return _Reader(None, {}).policy(data, make)


def _lines(node: yaml.Node | None, place: Place) -> Iterator[tuple[Place, int]]:
    """Find the line, counted from 1, on which each value begins."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*place, key.value)
            yield here, key.start_mark.line + 1
            yield from _lines(value, here)
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield (*place, number), item.start_mark.line + 1
            yield from _lines(item, (*place, number))


class _Reader:
    """Builds a policy and knows where each of its values stood."""

    def __init__(self, path: str | None, lines: Mapping[Place, int]) -> None:
        self._path = path
        self._lines = lines

    def policy(self, data: object, make: Callable[..., T]) -> T:
        checks: dict[str, Callable[[Any], object]] = {
            "name": _text,
            "rules": _list,
            "default": Action.of,
            "threshold": lambda value: probability("threshold", value),
            "on_failure": Action.of,
            "on_unchecked": Action.of,
            "message": _text,
            "rewrite_rounds": lambda value: make(rewrite_rounds=value),
        }
        fields = self._checked(data, checks, (), "policy")
        rules = [self._rule(rule, ("rules", n)) for n, rule in enumerate(fields.get("rules", ()))]
        return self._build(make, {**fields, "rules": tuple(rules)}, ())

    def _rule(self, data: object, place: Place) -> Rule:
        checks: dict[str, Callable[[Any], object]] = {
            "name": _text,
            "categories": read_categories,
            "sides": read_sides,
            "action": Action.of,
            "threshold": lambda value: probability("threshold", value),
            "thresholds": read_thresholds,
            "message": _text,
            "rewrite": as_rewriter,
            "escalate_to": read_names,
        }
        return self._build(Rule, self._checked(data, checks, place, "rule"), place)

    def _checked(
        self, data: object, checks: Mapping[str, Callable[[Any], object]], place: Place, what: str
    ) -> dict[str, Any]:
        if not isinstance(data, Mapping):
            self._fail(f"a {what} is a mapping, not {data!r}", place)
        for key, value in data.items():
            here = (*place, key)
            if key not in checks:
                self._fail(f"unknown {what} key {key!r}; allowed: {', '.join(checks)}", here)
            try:
                checks[key](value)
            except ConfigurationError as error:
                self._fail(str(error), self._culprit(checks[key], value, here))
        return dict(data)

    def _culprit(self, check: Callable[[Any], object], value: object, place: Place) -> Place:
        """Find the one item of a list or mapping that fails by itself."""
        single: list[tuple[Place, object]] = []
        if isinstance(value, list):
            single = [((*place, n), [item]) for n, item in enumerate(value)]
        elif isinstance(value, Mapping):
            single = [((*place, key), {key: item}) for key, item in value.items()]
        for here, alone in single:
            try:
                check(alone)
            except ConfigurationError:
                return here
        return place

    def _build(self, make: Callable[..., T], fields: Mapping[str, Any], place: Place) -> T:
        try:
            return make(**fields)
        except ConfigurationError as error:
            self._fail(str(error), place)

    def _fail(self, message: str, place: Place) -> NoReturn:
        raise PolicyError(message, path=self._path, line=self._lines.get(place)) from None


def _text(value: object) -> None:
    if not isinstance(value, str):
        raise ConfigurationError(f"{value!r} is no text")


def _list(value: object) -> None:
    if not isinstance(value, list | tuple):
        raise ConfigurationError(f"rules={value!r}; allowed: a list of rules")
