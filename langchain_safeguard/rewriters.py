"""Ways to turn an unsafe text into an acceptable one. The result is always checked again."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable

from langchain_safeguard.errors import ConfigurationError, EscalationError

Rewriter = Callable[[str], object] | Runnable[str, object]
"""Takes the unsafe text, returns a better one (a `str` or a message)."""

ENTITIES: dict[str, re.Pattern[str]] = {
    # Bounded, and begun only where a word begins: otherwise a long word costs its length squared.
    "email": re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}"),
    "url": re.compile(r"\bhttps?://[^\s<>\"']+", re.IGNORECASE),
    "iban": re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"),
    "us_ssn": re.compile(r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])"),
    "kr_rrn": re.compile(r"(?<![\d-])\d{6}-[1-8]\d{6}(?![\d-])"),
    "credit_card": re.compile(r"(?<![\d-])(?:\d[ -]?){12,18}\d(?![\d-])"),
    "ip_address": re.compile(
        r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\d.])"
    ),
    "phone_number": re.compile(r"(?<![\w-])\+?\(?\d{1,4}\)?(?:[ .-]?\(?\d{2,4}\)?){2,4}(?![\w-])"),
}
"""What `Redact` finds, narrow forms before wide ones; `kr_rrn` is the Korean resident number."""


@dataclass(frozen=True, slots=True)
class Replace:
    """Replaces the whole text."""

    text: str

    def __call__(self, text: str) -> str:
        """Return the replacement, whatever the text."""
        return self.text


@dataclass(frozen=True, slots=True)
class Redact:
    """Replaces entities with their names in brackets, such as `[EMAIL]`.

    It looks with regular expressions, so it finds what has a form, not names or addresses. For
    those hand a Runnable around a recogniser to the rule instead.

    Attributes:
        entities: Which of `ENTITIES` to replace.
    """

    entities: tuple[str, ...] = tuple(ENTITIES)

    def __post_init__(self) -> None:
        """Check the names."""
        for entity in self.entities:
            if entity not in ENTITIES:
                raise ConfigurationError.unknown("entity", entity, ENTITIES)

    def __call__(self, text: str) -> str:
        """Return the text with its entities replaced."""
        for entity, pattern in ENTITIES.items():
            if entity in self.entities:
                text = pattern.sub(f"[{entity.upper()}]", text)
        return text


def as_rewriter(spec: object) -> Rewriter:
    """Turn what a rule says under `rewrite` into a rewriter.

    Raises:
        ConfigurationError: It is none; the message says what is allowed.
    """
    if isinstance(spec, str):
        return Replace(spec)
    if isinstance(spec, Mapping) and set(spec) == {"redact"}:
        entities = spec["redact"]
        if isinstance(entities, Collection):
            return Redact((entities,) if isinstance(entities, str) else tuple(entities))
    if isinstance(spec, Runnable) or (callable(spec) and not isinstance(spec, type)):
        return spec
    raise ConfigurationError(
        f"rewrite={spec!r}; allowed: a text, {{'redact': [{', '.join(ENTITIES)}]}}, a callable or "
        "Runnable from text to text"
    )


def rewritten(result: object) -> str:
    """Read what a rewriter returned.

    Raises:
        EscalationError: It is neither text nor a message.
    """
    if isinstance(result, BaseMessage):
        return result.text
    if isinstance(result, str):
        return result
    raise EscalationError(f"a rewriter returned a {type(result).__name__}; allowed: str, message")
