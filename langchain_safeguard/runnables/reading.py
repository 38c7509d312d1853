"""Reading what flows through a chain, and putting a rewritten text back in its place."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import BaseMessage, convert_to_messages
from langchain_core.prompt_values import ChatPromptValue, PromptValue, StringPromptValue
from pydantic import BaseModel

from langchain_safeguard.conversation import Conversation, Turn
from langchain_safeguard.decision import Decision
from langchain_safeguard.errors import UnreadableInputError
from langchain_safeguard.refusal import rewritten_input, with_text


def answered(
    conversation: Conversation, answer: object, known: Collection[Turn] = ()
) -> Conversation:
    """Return the conversation followed by an answer, whatever its type.

    Structured answers (dicts, pydantic objects, tool arguments) are read as all the texts in them,
    names of keys included: those may be the model's own words.

    Args:
        conversation: What led to the answer.
        answer: The answer.
        known: Messages that are no part of it: graphs return what they were given, too.

    Raises:
        UnreadableInputError: Something in it is of a type that cannot be read.
    """
    if isinstance(answer, str | BaseMessage | PromptValue | Document):
        return conversation.answered(answer)
    new = [*_turns(answer, known)]
    text = "\n".join(turn.text for turn in new)
    unchecked = tuple(note for turn in new for note in turn.unchecked)
    return Conversation((*conversation.turns, Turn("assistant", text, unchecked, answer)))


def _turns(value: object, known: Collection[Turn]) -> Iterator[Turn]:
    if value is None or isinstance(value, str | bool | int | float):
        yield Turn("assistant", "" if value is None else str(value))
    elif isinstance(value, BaseMessage | PromptValue | Document):
        yield from (t for t in Conversation.of(value, "output").turns if t not in known)
    elif isinstance(value, BaseModel):
        yield from _turns({**value.__dict__, **(value.model_extra or {})}, known)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        yield from _turns(fields, known)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _turns(key, known)
            yield from _turns(item, known)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _turns(item, known)
    else:
        raise UnreadableInputError(
            f"cannot read a {type(value).__name__} as an answer; allowed: text, messages, and "
            "dicts, lists, dataclasses and pydantic objects of them"
        )


def rewritten_value(value: Any, decision: Decision) -> Any:
    """Return an input with the decision's text in place of what was judged; the rest stays.

    Raises:
        UnreadableInputError: The judged text came from several places of the value, so that nobody
            can say where the new one belongs.
    """
    if isinstance(value, str):
        return decision.text
    if isinstance(value, Conversation):
        return value.replaced("input", decision.text)
    if isinstance(value, BaseMessage):
        return with_text(value, decision)
    if isinstance(value, StringPromptValue):
        return value.model_copy(update={"text": decision.text})
    if isinstance(value, PromptValue):
        return ChatPromptValue(messages=rewritten_input(value.to_messages(), decision))
    if isinstance(value, Document):
        return value.model_copy(update={"page_content": decision.text})
    if isinstance(value, Mapping):
        return _rewritten_mapping(value, decision)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return _rewritten_sequence(value, decision)
    raise _nowhere(value)


def _rewritten_mapping(value: Mapping[Any, Any], decision: Decision) -> dict[Any, Any]:
    if "messages" in value:
        return {**value, "messages": rewritten_value(value["messages"], decision)}
    if "content" in value and ("role" in value or "type" in value):
        return {**value, "content": decision.text}
    judged = _judged(value)
    places = [key for key, item in value.items() if _judged(item) == judged]
    if len(places) != 1:
        raise _nowhere(value)
    return {**value, places[0]: rewritten_value(value[places[0]], decision)}


def _judged(value: object) -> str | None:
    try:
        return Conversation.of("" if value is None else value).checked("input").text
    except UnreadableInputError:
        return None


def _rewritten_sequence(value: Sequence[Any], decision: Decision) -> list[Any]:
    if value and all(isinstance(item, str) for item in value):
        return [decision.text]
    if value and all(isinstance(item, Document) for item in value):
        if len(value) > 1:
            raise _nowhere(value)
        return [rewritten_value(value[0], decision)]
    return rewritten_input(convert_to_messages(value), decision)


def _nowhere(value: object) -> UnreadableInputError:
    return UnreadableInputError(
        f"the policy rewrote a text from several places of a {type(value).__name__}; put the "
        "InputGuard behind the prompt, or hand it a text, messages, or a dict with one text"
    )
