"""Families of guards that are spelled in a YAML file."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from langchain_safeguard.errors import ConfigurationError

T = TypeVar("T")


def from_mapping(make: Callable[..., T], what: str, data: object) -> T:
    """Call something with the arguments that a mapping has by their names.

    Args:
        make: What to call.
        what: What it makes, for messages.
        data: The mapping.

    Raises:
        ConfigurationError: It is no mapping, or a key is unknown or missing; the message says what
            is allowed.
    """
    if not isinstance(data, Mapping):
        raise ConfigurationError(f"a {what} is a mapping, not {data!r}")
    parameters = inspect.signature(make).parameters
    for key in data:
        if key not in parameters:
            raise ConfigurationError.unknown(f"{what} key", key, parameters)
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in data:
            raise ConfigurationError(f"a {what} needs the key {key!r}")
    return make(**data)


def from_file(make: Callable[[Any], T], path: str | Path) -> T:
    """Make something of what a YAML file holds.

    Raises:
        ConfigurationError: The file cannot be read, or is wrong; the message names it.
    """
    # Imported late: the package itself is imported without it.
    import yaml

    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigurationError(f"{path}: cannot read it: {reason}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "bad syntax"
        raise ConfigurationError(f"{path}{place}: not YAML: {problem}") from error
    try:
        return make(data)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error
