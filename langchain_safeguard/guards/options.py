"""Options of families, checked: what is wrong is named, and so is what is allowed."""

from __future__ import annotations

from collections.abc import Mapping

from langchain_safeguard.errors import ConfigurationError


def text_or_none(key: str, value: object) -> str | None:
    """Return an optional text without white space around it.

    Raises:
        ConfigurationError: It is no text, or there is nothing in it.
    """
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"{key}={value!r}; allowed: a text; leave it out for the model's")
    return value.strip()


def named_texts(key: str, value: object) -> dict[str, str]:
    """Return texts by their names.

    Raises:
        ConfigurationError: It is no mapping, is empty, or holds something else than texts.
    """
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{key}={value!r}; allowed: a mapping from name to text")
    if not value:
        raise ConfigurationError(f"{key}={value!r}; name at least one")
    for name, text in value.items():
        if not isinstance(name, str) or not isinstance(text, str) or not text.strip():
            raise ConfigurationError(f"{key}: {name!r} has {text!r}; allowed: a name with a text")
    return dict(value)


def flag(key: str, value: object) -> bool:
    """Return an option that is on or off.

    Raises:
        ConfigurationError: It is neither `True` nor `False`.
    """
    if not isinstance(value, bool):
        raise ConfigurationError.unknown(key, value, (True, False))
    return value
