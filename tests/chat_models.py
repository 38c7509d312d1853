"""Chat models to test with: real subclasses of `BaseChatModel` that stream what they are told to.

A model counts its calls, the chunks it generated, and how many of its streams were closed before
their end. The counts live on a shared `Tally`, so that copies of a model count together.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field

Part = str | AIMessageChunk | BaseException
Script = Sequence[Part] | str | Callable[[list[BaseMessage]], Sequence[Part] | str]


@dataclass
class Tally:
    """What a model did, over all its copies and threads."""

    calls: int = 0
    chunks: int = 0
    closed_early: int = 0
    prompts: list[list[BaseMessage]] = field(default_factory=list)
    running: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, name: str, number: int = 1) -> None:
        """Count."""
        with self._lock:
            setattr(self, name, getattr(self, name) + number)


class StreamingChatModel(BaseChatModel):
    """Answers with a script, token by token, natively in sync and in async code.

    Args:
        script: The answer: a text (cut into words), or its parts (texts, whole chunks, or an
            exception to raise there), or a function from the messages to one of these.
        pause: Seconds between two parts.
        delay: Seconds before the first.
        usage: Whether the last chunk counts tokens.
    """

    script: Any
    pause: float = 0.0
    delay: float = 0.0
    usage: bool = False
    model_name: str = "scripted-1"
    tally: Any = Field(default_factory=Tally)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _parts(self, messages: list[BaseMessage]) -> list[Part]:
        script = self.script(messages) if callable(self.script) else self.script
        return words(script) if isinstance(script, str) else list(script)

    def _chunks(self, messages: list[BaseMessage], **kwargs: Any) -> Iterator[AIMessageChunk]:
        size = 0
        for part in self._parts(messages):
            if isinstance(part, BaseException):
                raise part
            size += 1
            self.tally.add("chunks")
            yield part.model_copy() if isinstance(part, BaseMessage) else AIMessageChunk(part)
        if self.usage:
            yield AIMessageChunk(
                "",
                response_metadata={"model_name": kwargs.get("model") or self.model_name},
                usage_metadata=UsageMetadata(
                    input_tokens=5, output_tokens=size, total_tokens=5 + size
                ),
            )

    def _begin(self, messages: list[BaseMessage]) -> None:
        self.tally.add("calls")
        self.tally.prompts.append(messages)

    def _result(self, messages: list[BaseMessage], **kwargs: Any) -> ChatResult:
        whole, *rest = [*self._chunks(messages, **kwargs), AIMessageChunk("")]
        for chunk in rest:
            whole = whole + chunk
        message = AIMessage(
            content=whole.content,
            additional_kwargs=whole.additional_kwargs,
            response_metadata=whole.response_metadata,
            tool_calls=whole.tool_calls,
            usage_metadata=whole.usage_metadata,
            id=whole.id,
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        self._begin(messages)
        time.sleep(self.delay)
        return self._result(messages, stop=stop, **kwargs)

    async def _agenerate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        self._begin(messages)
        try:
            await asyncio.sleep(self.delay)
        except asyncio.CancelledError:
            self.tally.add("closed_early")
            raise
        return self._result(messages, stop=stop, **kwargs)

    def _stream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        self._begin(messages)
        try:
            time.sleep(self.delay)
            for message in self._chunks(messages, stop=stop, **kwargs):
                time.sleep(self.pause)
                chunk = ChatGenerationChunk(message=message)
                if run_manager:
                    run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk
        except GeneratorExit:
            self.tally.add("closed_early")
            raise

    async def _astream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        self._begin(messages)
        try:
            await asyncio.sleep(self.delay)
            for message in self._chunks(messages, stop=stop, **kwargs):
                await asyncio.sleep(self.pause)
                chunk = ChatGenerationChunk(message=message)
                if run_manager:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk
        except (GeneratorExit, asyncio.CancelledError):
            self.tally.add("closed_early")
            raise

    def bind_tools(self, tools: Any, **kwargs: Any) -> Runnable[Any, Any]:
        """Bind tools as most providers do: a binding with the tools' schemas in its kwargs."""
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)


class WholeChatModel(StreamingChatModel):
    """The same, but it cannot stream."""

    _stream = BaseChatModel._stream
    _astream = BaseChatModel._astream


def words(text: str) -> list[Part]:
    """Cut a text into chunks of one word each, spaces included; together they are the text."""
    return [*re.findall(r"\s*\S+|\s+$", text)]


def call_chunks(name: str, arguments: str, *, id: str = "call_1") -> list[Part]:
    """Make the chunks of one tool call, its arguments in pieces of five characters."""
    pieces = [arguments[at : at + 5] for at in range(0, len(arguments), 5)]
    first: Any = {"name": name, "args": "", "id": id, "index": 0, "type": "tool_call_chunk"}
    rest: list[Any] = [
        {"name": None, "args": piece, "id": None, "index": 0, "type": "tool_call_chunk"}
        for piece in pieces
    ]
    return [AIMessageChunk("", tool_call_chunks=[chunk]) for chunk in [first, *rest]]


def reasoning_chunks(text: str) -> list[Part]:
    """Make the chunks of one reasoning block, a word each."""
    return [
        AIMessageChunk([{"type": "reasoning", "reasoning": str(word), "index": 0}])
        for word in words(text)
    ]
