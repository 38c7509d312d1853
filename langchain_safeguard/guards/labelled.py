"""Answers that are lines with labels, such as `Safety: Unsafe`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from langchain_safeguard.errors import GuardOutputError
from langchain_safeguard.guards.evidence import without_control


def labelled_lines(text: str, labels: Sequence[str]) -> dict[str, str]:
    """Read lines that begin with a label and a colon, in any order.

    Returns:
        The value of each label that is there, without white space around it.

    Raises:
        GuardOutputError: A line begins with none of the labels, or a label has two values.
    """
    known = {label.lower(): label for label in labels}
    found: dict[str, str] = {}
    for line in filter(None, map(str.strip, without_control(text).splitlines())):
        name, colon, value = line.partition(":")
        label = known.get(name.strip().lower())
        if label is None or not colon:
            raise GuardOutputError(f"a line of the answer is none of {', '.join(labels)}")
        if found.setdefault(label, value.strip()) != value.strip():
            raise GuardOutputError(f"the answer has two lines {label!r} that differ")
    return found


def choice(lines: Mapping[str, str], label: str, allowed: Sequence[str]) -> str:
    """Return the value of a label that has one of a few, in the spelling of `allowed`.

    Raises:
        GuardOutputError: It is not there, or has another one.
    """
    spellings = {each.lower(): each for each in allowed}
    value = spellings.get(lines.get(label, "").rstrip(".").lower())
    if value is None:
        raise GuardOutputError(f"the answer has no line {label!r} with one of {', '.join(allowed)}")
    return value


def named(value: str) -> list[str]:
    """Return the names in a list with commas; `None` is an empty one."""
    names = (name.strip().rstrip(".") for name in re.split(r"[,;\n]", value))
    return [name for name in names if name and name.lower() not in ("none", "n/a")]
