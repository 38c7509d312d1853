"""Agents to test with: scripted models that call tools, and every way of running an agent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import BaseTool, tool

from langchain_safeguard.middleware import SafeguardMiddleware
from tests.chat_models import StreamingChatModel, call_chunks, words
from tests.word_guard import WordGuard

SAFE = "Bread needs flour, water and salt. Knead it well, let it rest. Then bake it for an hour."
UNSAFE = "First mix the two powders. Then put the bomb together, wire by wire, and so on and on."
SECRET = "the bomb together"
REFUSAL = "I'm sorry, but I can't help with that."
HI: dict[str, Any] = {"messages": [("user", "hi")]}


def middleware(guard: Any = None, policy: Any = None, **options: Any) -> SafeguardMiddleware:
    """Make a middleware whose guard goes by words and whose windows are small."""
    return SafeguardMiddleware(guard or WordGuard(), policy, **{"check_every": 4, **options})


def agent(
    script: Any, tools: Sequence[BaseTool] = (), around: Sequence[Any] | None = None, **options: Any
) -> Any:
    """Make a guarded agent around a scripted model."""
    model = script if not isinstance(script, str | list) else StreamingChatModel(script=script)
    return create_agent(
        model, [*tools], middleware=[middleware()] if around is None else around, **options
    )


def notebook() -> tuple[BaseTool, list[str]]:
    """Make a tool with a side effect, and the list of what it did."""
    written: list[str] = []

    @tool
    def note(text: str) -> str:
        """Write a note."""
        written.append(text)
        return f"noted {text}"

    return note, written


def calling(*texts: str, then: Any = "Done.") -> Callable[[list[BaseMessage]], Any]:
    """Script a model that calls `note` with each text in turn, in steps, and then answers."""

    def script(messages: list[BaseMessage]) -> Any:
        begin = max(at for at, m in enumerate(messages) if isinstance(m, HumanMessage))
        step = sum(isinstance(message, ToolMessage) for message in messages[begin:])
        if step < len(texts):
            arguments = f'{{"text": "{texts[step]}"}}'
            return [*words("I note it. "), *call_chunks("note", arguments, id=f"call_{step}")]
        return then

    return script


def _astreamed(mode: str) -> Callable[[Any, Any, Any], Any]:
    async def run(agent: Any, value: Any, config: Any) -> Any:
        return [part async for part in agent.astream(value, config, stream_mode=mode)][-1]

    return lambda agent, value, config: asyncio.run(run(agent, value, config))


WAYS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "invoke": lambda agent, value, config: agent.invoke(value, config),
    "ainvoke": lambda agent, value, config: asyncio.run(agent.ainvoke(value, config)),
    "stream": lambda agent, value, config: [*agent.stream(value, config, stream_mode="values")][-1],
    "astream": _astreamed("values"),
}


def contents(state: Any) -> list[tuple[str, str]]:
    """Show the messages of a state: who, and what."""
    return [(message.type, message.text) for message in state["messages"]]


def tokens(agent: Any, value: Any, config: Any = None) -> list[str]:
    """Return what the `messages` mode shows of answers."""
    parts = agent.stream(value, config, stream_mode="messages", subgraphs=True)
    return [m.text for _, (m, _) in parts if isinstance(m, AIMessage) and m.text]
