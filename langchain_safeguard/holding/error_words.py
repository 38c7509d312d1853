"""What an error says: steps, tools and parsers quote in it what nobody has checked."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from langchain_safeguard.errors import SafeguardError
from langchain_safeguard.holding.graph_task import is_control_flow


def text_of_error(error: BaseException) -> str:
    """Return all that an error says as one text; nothing, if it only steers a LangGraph run."""
    return "" if is_control_flow(error) else "\n".join(words_of(error))


def words_of(error: BaseException) -> list[str]:
    """Find what an error says, and those that led to it: any of it may end up before somebody.

    Read are messages, notes and attributes (parsers keep there what they could not parse, clients
    of models the answer they got), also of the errors in a group. Errors of ours say nothing, but
    what led to them may.
    """
    told: list[str] = []
    met: dict[int, object] = {}
    left: deque[object] = deque([error])
    while left:
        value = left.popleft()
        if isinstance(value, bytes | bytearray):
            value = bytes(value).decode("utf-8", "ignore")
        if isinstance(value, str):
            # Most errors say in their message what stands in their attributes.
            if value.strip() and not any(value in other for other in told):
                told.append(value)
        elif id(value) not in met:
            # Kept, not only noted: the next object could get the place of one that is gone.
            met[id(value)] = value
            left.extend(_parts(value))
    return told


def _parts(value: object) -> Iterator[Any]:
    """Take apart what can hold texts; a client, a request or a lock among attributes cannot."""
    if isinstance(value, BaseException):
        yield from _parts_of_error(value)
    elif isinstance(value, BaseModel):
        yield from (*value.__dict__.values(), value.model_extra)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from (getattr(value, each.name, None) for each in dataclasses.fields(value))
    elif isinstance(value, Mapping):
        yield from value
        yield from value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        yield from value


def _parts_of_error(error: BaseException) -> Iterator[Any]:
    if not isinstance(error, SafeguardError):
        yield str(error)
        yield from (*error.args, *error.__dict__.values())
        if isinstance(error, ValidationError):
            # Its message quotes only the beginning of a value.
            yield [each["input"] for each in error.errors(include_url=False)]
    # The context, too, where it is suppressed: tools that report errors show it all the same.
    yield from (error.__cause__, error.__context__)
    if isinstance(error, BaseExceptionGroup):
        yield error.exceptions
