"""Taking any value apart into the texts it holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable
from langchain_core.tracers.log_stream import RunLogPatch
from pydantic import BaseModel

_MAX_DEPTH = 24
"""Deeper than any message or checkpoint nests; stops objects that grow while being walked."""


class Leaf(NamedTuple):
    """One text or number inside a value.

    Attributes:
        path: Where it is: field names and, for streamed blocks, the block's number.
        value: The text or number itself.
        joins: Whether the same place of the next item may continue this text.
    """

    path: str
    value: str | int | float
    joins: bool = True


def leaves(value: object, path: str = "") -> Iterator[Leaf]:
    """Yield every text and number in a value: messages, blocks, dicts, exceptions, objects.

    Runnables (models, tools, prompts) are left out: they are configuration, and a fake model
    that is scripted with the secret would otherwise always look like a leak.
    """
    return _Walk().visit(value, path, 0)


class _Walk:
    """One pass over a value; remembers where it is so that cycles end."""

    def __init__(self) -> None:
        self._open: set[int] = set()

    def visit(self, value: object, path: str, depth: int) -> Iterator[Leaf]:
        if value is None or isinstance(value, bool | type | Runnable):
            return
        if isinstance(value, str | int | float):
            yield Leaf(path, value)
        elif isinstance(value, bytes | bytearray | memoryview):
            yield Leaf(path, bytes(value).decode("utf-8", "replace"))
        elif id(value) not in self._open and depth < _MAX_DEPTH:
            self._open.add(id(value))
            try:
                for part, below in _parts(value, path):
                    if isinstance(below, Leaf):
                        yield below
                    else:
                        yield from self.visit(below, part, depth + 1)
            finally:
                self._open.discard(id(value))


def _parts(value: object, path: str) -> Iterator[tuple[str, Any]]:
    """The direct parts of a value that is not a text: (path, part), or a ready `Leaf`."""
    if isinstance(value, BaseException):
        yield from _exception_parts(value, path)
    elif isinstance(value, RunLogPatch):
        for op in value.ops:
            yield _join(path, op["path"]), op.get("value")
    elif isinstance(value, Mapping):
        yield from _mapping_parts(value, path)
    elif isinstance(value, tuple) and hasattr(value, "_asdict"):
        yield from _mapping_parts(value._asdict(), path)
    elif isinstance(value, list | tuple | set | frozenset):
        for each in value:
            yield path + "[]", each
    else:
        yield from _object_parts(value, path)


def _mapping_parts(value: Mapping[Any, Any], path: str) -> Iterator[tuple[str, Any]]:
    """Streamed blocks and tool calls carry an `index`: it keeps parallel ones apart."""
    index = value.get("index")
    if isinstance(index, int | str):
        path = f"{path}#{index}"
    for key, each in value.items():
        name = key if isinstance(key, str) else repr(key)
        # A key is text somebody can read, too, but the next item's key never continues it.
        yield path, Leaf(f"{path} (key)", name, joins=False)
        yield _join(path, name), each


def _exception_parts(error: BaseException, path: str) -> Iterator[tuple[str, Any]]:
    """What a reader of the error sees: its text, notes, attributes and causes.

    Not its traceback: a source line that names the secret belongs to the test, not to the app.
    """
    yield path, Leaf(f"{path}{type(error).__name__}", str(error), joins=False)
    for each in error.args:
        yield f"{path}{type(error).__name__}.args", each
    yield from _mapping_parts(vars(error), f"{path}{type(error).__name__}")
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        yield f"{path}{type(error).__name__} caused by ", cause
    for each in getattr(error, "exceptions", ()):
        yield f"{path}{type(error).__name__} with ", each


def _object_parts(value: object, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, BaseModel):
        fields = {**vars(value), **(value.__pydantic_extra__ or {})}
    elif dataclasses.is_dataclass(value):
        fields = {each.name: getattr(value, each.name, None) for each in dataclasses.fields(value)}
    else:
        fields = dict(getattr(value, "__dict__", {}))
        yield path, Leaf(path, str(value), joins=False)
    if isinstance(value, BaseMessage):
        # `.text` reads strings and blocks alike, so a stream that mixes them is still joined.
        yield path, Leaf(_join(path, "text"), str(value.text))
        if isinstance(value.content, str):
            fields.pop("content", None)
    yield from _mapping_parts(fields, path)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
