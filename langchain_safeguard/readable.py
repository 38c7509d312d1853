"""The texts inside a value of any shape: found, judged as one text, and put back changed.

Tools take and return strings, content blocks, messages, documents, nested dicts and lists, and
commands of LangGraph. What a guard is asked about is all that a model could read of them. What can
be replaced are the texts themselves, so that a rewritten value has the shape of the old one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import BaseMessage
from pydantic import BaseModel

_BINARY = ("base64", "data", "url", "image_url", "file_id", "file_data", "input_audio")
"""Keys of a content block that point to something no guard reads."""
_WORDLESS = {
    *_BINARY,
    "type",
    "id",
    "index",
    "mime_type",
    "media_type",
    "tool_use_id",
    "format",
    "detail",
    "source_type",
    "signature",
    "encrypted_content",
    "cache_control",
}
_CITING = ("annotations", "citations")
_KNOWN_BLOCKS = {"image", "image_url", "audio", "video", "file", "document", "input_audio", "json"}
_UNKNOWN = "unknown content block"


@dataclass(frozen=True, slots=True)
class Readable:
    """A value and what can be read of it.

    Attributes:
        value: The value.
        texts: The texts in it that can be replaced, in order.
        text: All that can be read, as one text: also names of keys, numbers, arguments of calls.
        unchecked: What could not be read, one short note each, such as `"image"`. The notes are
            words of ours, never of the value.
    """

    value: Any
    texts: tuple[str, ...]
    text: str
    unchecked: tuple[str, ...]

    @classmethod
    def of(cls, value: Any) -> Readable:
        """Read a value."""
        texts: list[str] = []

        def keep(text: str) -> str:
            texts.append(text)
            return text

        walk = _Walk(keep)
        walk.value(value)
        return cls(value, tuple(texts), "\n".join(walk.read), tuple(walk.unchecked))

    @property
    def empty(self) -> bool:
        """Tell whether there is nothing to judge."""
        return not self.text.strip() and not self.unchecked

    def with_texts(self, texts: Sequence[str]) -> Readable:
        """Return the same with other texts in the places of the old ones, the value a copy."""
        new: Iterator[str] = iter(texts)
        return Readable.of(_Walk(lambda _: next(new)).value(self.value))


class _Walk:
    """One way through a value, always in the same order.

    Attributes:
        read: What was read.
        unchecked: Notes on what could not be.
    """

    def __init__(self, change: Callable[[str], str]) -> None:
        self.read: list[str] = []
        self.unchecked: list[str] = []
        self._change = change
        self._label = ""

    def value(self, value: Any) -> Any:
        """Return the value with its texts changed; the same object if none was."""
        if isinstance(value, str):
            self._see(value)
            return self._text(value)
        if value is None or isinstance(value, bool | int | float):
            # Numbers by themselves say nothing (vectors have thousands); those with a name do.
            if self._label and value is not None:
                self._see(str(value))
            self._label = ""
            return value
        if isinstance(value, BaseMessage):
            return self._message(value)
        if isinstance(value, Document):
            return self._fields(value, {"page_content": self.value, "metadata": self.value})
        if isinstance(value, Mapping):
            return self._block(value) if _is_block(value) else self._mapping(value)
        if type(value) in (list, tuple):
            return self._sequence(value, self.value)
        if _is_command(value):
            return self._fields(value, {"update": self.value})
        self._label = ""
        if isinstance(value, BaseModel):
            self._fixed(value.model_dump())
        elif isinstance(value, set | frozenset):
            self._fixed(sorted(map(str, value)))
        else:
            self.unchecked.append("binary data" if _is_binary(value) else "object")
        return value

    def _see(self, text: str) -> None:
        if text:
            self.read.append(f"{self._label}{text}")
        self._label = ""

    def _text(self, text: str) -> str:
        """Change a text; of a JSON value, as tools return them, only the texts in it.

        It is read as it stands, since a model reads it so: keys, and what JSON would drop, too.
        """
        parsed = _parsed(text)
        if parsed is None:
            return self._change(text)
        changed = self._leaves(parsed)
        return text if changed == parsed else json.dumps(changed, ensure_ascii=False)

    def _leaves(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._change(value)
        if isinstance(value, dict):
            return {key: self._leaves(item) for key, item in value.items()}
        return [*map(self._leaves, value)] if isinstance(value, list) else value

    def _fixed(self, value: Any) -> None:
        """Read what cannot be replaced."""
        change, self._change = self._change, lambda text: text
        try:
            self.value(value)
        finally:
            self._change = change

    def _message(self, message: BaseMessage) -> BaseMessage:
        blocks = self._content if isinstance(message.content, list) else self.value
        changed: BaseMessage = self._fields(message, {"content": blocks})
        for key in ("tool_calls", "invalid_tool_calls"):
            for call in getattr(message, key, ()):
                self._fixed([call.get("name"), call.get("args")])
        self._fixed(message.additional_kwargs)
        return changed

    def _content(self, blocks: list[Any]) -> list[Any]:
        read: list[Any] = self._sequence(
            blocks,
            lambda block: self._block(block) if isinstance(block, dict) else self.value(block),
        )
        return read

    def _block(self, block: Mapping[str, Any]) -> Mapping[str, Any]:
        before = len(self.read)
        changed: dict[str, Any] = {}
        for key, item in block.items():
            if key in _CITING:
                self._strings(item)
            elif key not in _WORDLESS or _has_words(item):
                changed[key] = self._content(item) if isinstance(item, list) else self.value(item)
        pictured = any(block.get(key) and key not in changed for key in _BINARY)
        silent = len(self.read) == before and block.get("text") != ""
        if pictured or (silent and set(block) - {*_WORDLESS, *_CITING, "extras"}):
            known = block.get("type") in _KNOWN_BLOCKS
            self.unchecked.append(str(block["type"]) if known else _UNKNOWN)
        same = all(changed[key] is block[key] for key in changed)
        return block if same else {**block, **changed}

    def _strings(self, value: Any) -> None:
        """Read the words of citations, whose addresses are no content."""
        if isinstance(value, str):
            self._see(value)
        elif isinstance(value, Mapping):
            for key, item in value.items():
                if key not in _WORDLESS:
                    self._strings(item)
        elif isinstance(value, list):
            for item in value:
                self._strings(item)

    def _mapping(self, value: Mapping[Any, Any]) -> Any:
        changed = {}
        for key, item in value.items():
            self._label = f"{key}: "
            if isinstance(item, Mapping | list | tuple) and item:
                self._see(" ")
            changed[key] = self.value(item)
        self._label = ""
        return value if all(changed[key] is value[key] for key in changed) else changed

    def _sequence(self, value: Any, read: Callable[[Any], Any]) -> Any:
        self._label = ""
        items = [read(item) for item in value]
        same = all(new is old for new, old in zip(items, value, strict=True))
        return value if same else type(value)(items)

    def _fields(self, value: Any, fields: Mapping[str, Callable[[Any], Any]]) -> Any:
        self._label = ""
        old = {name: getattr(value, name) for name in fields}
        new = {name: read(old[name]) for name, read in fields.items()}
        if all(new[name] is old[name] for name in fields):
            return value
        if isinstance(value, BaseModel):
            return value.model_copy(update=new)
        return replace(value, **new)


def _parsed(text: str) -> Any:
    """Return a JSON object or list that holds texts; `None` if the text is nothing of the kind."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        value = json.loads(text)
        return value if _holds_text(value) else None
    except (ValueError, RecursionError):
        return None


def _holds_text(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(_holds_text, value.values() if isinstance(value, dict) else value))
    return isinstance(value, str)


def _is_block(value: Mapping[Any, Any]) -> bool:
    """Tell a content block that carries something else than text from a plain dict."""
    return isinstance(value.get("type"), str) and any(key in value for key in _BINARY)


def _has_words(value: Any) -> bool:
    """Tell words from an id, an address or encoded bytes, which have no spaces."""
    return isinstance(value, Mapping) or (isinstance(value, str) and len(value.split()) > 1)


def _is_command(value: Any) -> bool:
    """Tell LangGraph's `Command` without importing LangGraph."""
    return is_dataclass(value) and hasattr(value, "update") and hasattr(value, "goto")


def _is_binary(value: Any) -> bool:
    return isinstance(value, bytes | bytearray | memoryview)
