"""Roles and text: the one form in which everything is checked.

`Conversation.of` reads what LangChain passes around: a `str`, a message, a list of messages or
message-likes, a `PromptValue`, a dict, a `Document`. What cannot be read as text (images, audio,
unknown content blocks) is kept as a note in `Turn.unchecked`, never dropped silently.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, Literal

from langchain_core.documents import Document
from langchain_core.messages import AIMessageChunk, BaseMessage, HumanMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue

from langchain_safeguard.errors import UnreadableInputError
from langchain_safeguard.readable import Readable
from langchain_safeguard.taxonomy import Side

Role = Literal["system", "user", "assistant", "tool"]

_ROLE_OF_SIDE: dict[Side, Role] = {
    "input": "user",
    "output": "assistant",
    "tool_input": "assistant",
    "tool_output": "tool",
}
_ROLE_OF_MESSAGE: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "human": "user",
    "ai": "assistant",
    "AIMessageChunk": "assistant",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
_TEXT_KEYS = ("text", "reasoning", "thinking", "refusal")
_BESIDE_CONTENT = ("reasoning_content", "reasoning", "reasoning_details", "thinking", "refusal")
"""Where providers put words of the model beside its content, in `additional_kwargs`."""
_WORDLESS_KEYS = {"type", "id", "format", "signature", "data", "encrypted_content"}
_QUOTING = {"document", "search_result", "json", "non_standard", "tool_result"}
"""Blocks that hold further ones, or data; so do those whose type ends in `_tool_result`."""
_SERVER_CALLS = {"server_tool_call", "server_tool_call_chunk", "server_tool_use"}
"""Calls of tools that run at the provider; they stand in the content alone."""
_MEDIA = {"image", "audio", "video", "file", "media"}
_POINTERS = {"url", "image_url", "base64", "data", "file", "file_id", "input_audio"}
_LONGEST_WORD = 200
_CALL_BLOCKS = {"tool_call", "tool_call_chunk", "invalid_tool_call", "tool_use", "function_call"}


@dataclass(frozen=True, slots=True)
class Turn:
    """What one speaker said.

    Attributes:
        role: Who spoke. A role nobody knows is read as `user`: the least trusted.
        text: Everything readable: text, reasoning and tool calls.
        unchecked: What could not be read, one short note each, such as `"image"`.
        source: What an answer was read from, where it is known. Nobody judges it; a review that
            takes days needs it to let just this answer out.
        preamble: How the text begins where that is the application's own words, such as what a tool
            says of itself. Guards that read instructions read it, too; classifiers are not asked
            about it.
    """

    role: Role
    text: str
    unchecked: tuple[str, ...] = ()
    source: object = field(default=None, compare=False, repr=False)
    preamble: str = ""

    @property
    def body(self) -> str:
        """Return the text without the application's own words in front of it."""
        return self.text.removeprefix(self.preamble)


@dataclass(frozen=True, slots=True)
class Conversation:
    """The turns that led here; the last ones are what is judged."""

    turns: tuple[Turn, ...]

    @classmethod
    def of(cls, value: object, side: Side = "input") -> Conversation:
        """Read `value`; bare text is taken as said by whoever speaks on `side`.

        Raises:
            UnreadableInputError: `value` is of a type, or has a role, that cannot be read.
        """
        if isinstance(value, Conversation):
            return value
        return cls(tuple(_turns(value, _ROLE_OF_SIDE[side])))

    def answered(self, answer: object, source: object = None) -> Conversation:
        """Return this conversation followed by `answer`, read as the assistant's.

        Args:
            answer: What is read.
            source: What it stands for, if that is something else.
        """
        *before, last = Conversation.of(answer, "output").turns
        last = replace(last, source=answer if source is None else source)
        return Conversation((*self.turns, *before, last))

    def checked(self, side: Side) -> Turn:
        """Return the part that is judged on `side`, as one turn.

        On `input` that is all that was said since the last answer (and an answer that the caller
        began for the model), without system turns, which are the application's own words; unless
        there is nothing else. On the other sides it is the last turn of the side's speaker.

        Raises:
            UnreadableInputError: The conversation does not end with a turn of that side.
        """
        begin = self._begin(side)
        role = _ROLE_OF_SIDE[side]
        turns = self.turns[begin:]
        if side == "input":
            turns = tuple(t for t in turns if t.role != "system") or turns
        if not turns or (side != "input" and turns[-1].role != role):
            last = repr(turns[-1].role) if turns else "nothing"
            raise UnreadableInputError(
                f"side={side!r} judges the turn of the {role!r}, but the conversation ends with "
                f"{last}"
            )
        return Turn(
            role,
            "\n\n".join(t.text for t in turns if t.text),
            tuple(note for t in turns for note in t.unchecked),
            preamble=turns[0].preamble,
        )

    def replaced(self, side: Side, text: str) -> Conversation:
        """Return this conversation with another text in place of the judged part."""
        turn = replace(self.checked(side), text=text)
        return Conversation((*self.context(side), turn))

    def context(self, side: Side) -> tuple[Turn, ...]:
        """Return the turns before the part that is judged on `side`."""
        return self.turns[: self._begin(side)]

    def _begin(self, side: Side) -> int:
        roles = [turn.role for turn in self.turns]
        at = len(roles)
        if side == "input":
            while at and roles[at - 1] == "assistant":
                at -= 1
            while at and roles[at - 1] != "assistant":
                at -= 1
            return at
        while at and roles[at - 1] == _ROLE_OF_SIDE[side]:
            at -= 1
        return min(at, max(len(roles) - 1, 0))


def _turns(value: object, role: Role) -> list[Turn]:
    if isinstance(value, str):
        return [Turn(role, value)]
    if isinstance(value, BaseMessage):
        return [_turn_of(value)]
    if isinstance(value, PromptValue):
        return [_turn_of(message) for message in value.to_messages()]
    if isinstance(value, Document):
        return [Turn(role, value.page_content)]
    if isinstance(value, Mapping):
        return _turns_of_mapping(value, role)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return _turns_of_sequence(value, role)
    raise UnreadableInputError(
        f"cannot read a {type(value).__name__} as a conversation; allowed: str, message, list of "
        "messages, PromptValue, Document, dict of these, Conversation"
    )


def _turns_of_mapping(value: Mapping[Any, Any], role: Role) -> list[Turn]:
    if "messages" in value:
        return _turns(value["messages"], role)
    if "content" in value and ("role" in value or "type" in value):
        return [_turn_of(message) for message in _messages([value])]
    history: list[Turn] = []
    said: list[str] = []
    unchecked: list[str] = []
    for key, item in value.items():
        if isinstance(item, str | int | float | bool | None):
            said.append("" if item is None else str(item))
            continue
        try:
            turns = _turns(item, role)
        except UnreadableInputError:
            unchecked.append(f"{key}: {type(item).__name__}")
            continue
        if _is_bare_text(item):
            said += [turn.text for turn in turns]
        else:
            history += turns
    if said or unchecked or not history:
        history.append(Turn(role, "\n".join(filter(None, said)), tuple(unchecked)))
    return history


def _is_bare_text(value: object) -> bool:
    """Tell texts, which nobody has said yet, from messages, which have a speaker."""
    items = value if isinstance(value, list | tuple) else [value]
    return bool(items) and all(isinstance(item, str | Document) for item in items)


def _turns_of_sequence(value: Sequence[Any], role: Role) -> list[Turn]:
    if value and all(isinstance(item, Document) for item in value):
        return [Turn(role, "\n\n".join(item.page_content for item in value))]
    if value and all(isinstance(item, str) for item in value):
        return [Turn(role, "\n".join(value))]
    return [_turn_of(message) for message in _messages(value)]


def _messages(value: Sequence[Any]) -> list[BaseMessage]:
    try:
        return convert_to_messages(value)
    except (ValueError, TypeError, KeyError, NotImplementedError) as error:
        # The error of langchain-core quotes the message, so it is not chained.
        kinds = ", ".join(sorted({type(item).__name__ for item in value}))
        raise UnreadableInputError(
            f"cannot read a list of {kinds} as messages ({type(error).__name__}); allowed: "
            "messages, (role, text) pairs, and dicts with 'role' and 'content', where role is one "
            "of system, developer, user, human, assistant, ai, tool"
        ) from None


def _turn_of(message: BaseMessage) -> Turn:
    role = _ROLE_OF_MESSAGE.get(getattr(message, "role", message.type), "user")
    calls = [_call(call) for call in _calls_of(message)]
    text: list[str] = []
    unchecked: list[str] = []
    beside = message.additional_kwargs
    for key in _BESIDE_CONTENT:
        text += _strings(beside.get(key))
    if isinstance(beside.get("audio"), Mapping):
        text += _strings(beside["audio"].get("transcript"))
    if isinstance(beside.get("function_call"), Mapping) and not calls:
        calls.append(_call(beside["function_call"]))
    for is_text, group in groupby(_blocks(message.content), _is_text):
        if is_text:
            said = [block["text"] for block in group]
            # An answer is shown as `message.text`, which puts them together as they are.
            text += ["".join(said)] if role == "assistant" else said
            continue
        for block in group:
            if block.get("type") not in _CALL_BLOCKS:
                found, unread = _words_in(block)
                text += found
                unchecked += unread
            elif not calls:
                text.append(_call(block))
    return Turn(role, "\n".join(filter(None, [*text, *calls])), tuple(unchecked))


def _calls_of(message: BaseMessage) -> list[Mapping[str, Any]]:
    if isinstance(message, AIMessageChunk) and message.tool_call_chunks:
        # While a call streams in, its raw arguments are all there is.
        return [*message.tool_call_chunks]
    return [*getattr(message, "tool_calls", ()), *getattr(message, "invalid_tool_calls", ())]


def _call(call: Mapping[str, Any]) -> str:
    arguments = call.get("args", call.get("input", call.get("arguments")))
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False, default=str)
    return f"{call.get('name') or ''}({arguments})"


def says_nothing(block: Mapping[str, Any]) -> bool:
    """Tell whether a content block holds no words that are judged."""
    return block.get("type") not in _CALL_BLOCKS and not any(_words_in(block)[0])


def _blocks(content: str | list[Any]) -> list[Mapping[str, Any]]:
    parts = [content] if isinstance(content, str) else content
    return [{"type": "text", "text": p} if isinstance(p, str) else p for p in parts]


def _is_text(block: Mapping[str, Any]) -> bool:
    return block.get("type") == "text" and isinstance(block.get("text"), str)


def _words_in(block: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the words of a content block, and a note if not all of it could be read."""
    kind = str(block.get("type", "unknown content block"))
    if kind in _QUOTING or kind.endswith("_tool_result"):
        read = Readable.of(HumanMessage([dict(block)]))
        return [read.text], [kind] if read.unchecked else []
    if kind in _SERVER_CALLS:
        return [_call(block)], []
    found = list(_texts(block))
    if found or _is_bookkeeping(block):
        return found, []
    if kind in _MEDIA or not _POINTERS.isdisjoint(block):
        return [], [kind]
    # Of a kind nobody knows: what looks like words, and not like encoded bytes, is read as well.
    return [text for text in _strings(block) if _is_wordy(text)], [kind]


def _texts(block: Mapping[str, Any]) -> Iterable[str]:
    """Find the text of a content block, also one level down (OpenAI's reasoning summaries)."""
    for key in _TEXT_KEYS:
        if isinstance(block.get(key), str):
            yield block[key]
    summary = block.get("summary")
    if isinstance(summary, list):
        for part in summary:
            if isinstance(part, Mapping):
                yield from _texts(part)


def _strings(value: object) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if key not in _WORDLESS_KEYS:
                yield from _strings(item)
    elif isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        for item in value:
            yield from _strings(item)


def _is_wordy(text: str) -> bool:
    return max(map(len, text.split()), default=0) <= _LONGEST_WORD


def _is_bookkeeping(block: Mapping[str, Any]) -> bool:
    """Tell blocks without content, such as the position marker of a chunk or a cache point."""
    return not set(block) - {"type", "index", "id", "cache_control", "signature", "extras"}
