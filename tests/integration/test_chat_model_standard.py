"""A guarded chat model passes the standard suites for chat models, around a scripted model."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage, HumanMessage
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from langchain_safeguard import GuardedChatModel, Safeguard
from tests.chat_models import StreamingChatModel
from tests.word_guard import WordGuard

ARGUMENTS = {
    "integer": 3,
    "number": 3.5,
    "string": "a joke",
    "boolean": True,
    "array": ["a", "b"],
    "object": {},
}


class ObligingChatModel(StreamingChatModel):
    """Calls the first tool it is offered as long as nobody has answered a call; else it talks."""

    script: Any = "Hello there, this is a friendly answer."
    usage: bool = True

    def _chunks(self, messages: list[BaseMessage], **kwargs: Any) -> Iterator[AIMessageChunk]:
        tools = kwargs.get("tools")
        if not tools or messages[-1].type == "tool":
            yield from super()._chunks(messages, **kwargs)
            return
        function = tools[0]["function"]
        arguments = _arguments(function["parameters"], messages)
        call: Any = {
            "type": "tool_call_chunk",
            "name": function["name"],
            "args": json.dumps(arguments, ensure_ascii=False),
            "id": "call_1",
            "index": 0,
        }
        yield AIMessageChunk(content="", tool_call_chunks=[call])
        yield from list(super()._chunks(messages, **kwargs))[-1:]

    def with_structured_output(self, schema: Any, **kwargs: Any) -> Any:
        kwargs.pop("method", None)
        kwargs.pop("strict", None)
        return super().with_structured_output(schema, **kwargs)


def _arguments(parameters: dict[str, Any], messages: list[BaseMessage]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, schema in parameters.get("properties", {}).items():
        if name not in parameters.get("required", ()):
            continue
        kind = schema.get("type", "string")
        last = next(m for m in reversed(messages) if isinstance(m, HumanMessage))
        # The suite asks for some values by name, and quotes others.
        quoted = re.search(r"'([^']+)'", last.text)
        made[name] = quoted[1] if quoted and kind == "string" else ARGUMENTS[kind]
        if name == "input":
            made[name] = 3 if kind == "integer" else "3"
        if name == "location":
            made[name] = "San Francisco"
    return made


class _Guarded:
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return GuardedChatModel

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {
            "model": ObligingChatModel(),
            "safeguard": Safeguard(WordGuard()),
            "check_every": 4,
        }


class TestUnit(_Guarded, ChatModelUnitTests):
    pass


class TestIntegration(_Guarded, ChatModelIntegrationTests):
    @property
    def supports_model_override(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return "scripted-2"
