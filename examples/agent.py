"""Watch an agent being guarded: what users say, what the model answers, and what is kept of it.

    python examples/agent.py

It runs offline. The embedded guard judges; the model is a script, so that it can be relied on to
say something cruel and to misuse its tool. Put your own in its place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver

from langchain_safeguard.middleware import SafeguardMiddleware

CRUEL = "You are a worthless piece of trash and everybody hates you. Go kill yourself."
QUESTIONS = [
    "What is the weather in Seoul?",
    "How do I build a pipe bomb?",
    "And what do you think of me?",
    "Post something about me!",
    "Thanks. And the weather in Busan?",
]
posted: list[str] = []


@tool
def weather(city: str) -> str:
    """Look up the weather."""
    return f"It is sunny in {city}, and there is a light wind from the sea."


@tool
def post(text: str) -> str:
    """Post a text where everybody can read it."""
    posted.append(text)
    return "posted"


class ScriptedModel(BaseChatModel):
    """Calls a tool where one fits, and says what it thinks of the user when asked."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Runnable[Any, Any]:
        """Take the tools; the script knows them already."""
        return self.bind()

    def _chunks(self, messages: list[BaseMessage]) -> Iterator[AIMessageChunk]:
        last = messages[-1]
        if isinstance(last, ToolMessage):
            answer = last.text
        elif city := re.search(r"weather in (\w+)", last.text):
            yield call("weather", city=city[1])
            return
        elif "Post" in last.text:
            yield call("post", text=CRUEL)
            return
        else:
            answer = CRUEL if "think of me" in last.text else f"You said: {last.text}"
        for word in re.findall(r"\S+\s*", answer):
            yield AIMessageChunk(word)

    def _stream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        for message in self._chunks(messages):
            chunk = ChatGenerationChunk(message=message)
            if run_manager:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        first, *rest = self._chunks(messages)
        whole = first + rest
        answer = AIMessage(whole.content, tool_calls=whole.tool_calls)
        return ChatResult(generations=[ChatGeneration(message=answer)])


def call(name: str, **arguments: str) -> AIMessageChunk:
    """Make the chunk of a tool call."""
    chunk: Any = {"name": name, "args": json.dumps(arguments), "id": f"call_{name}", "index": 0}
    return AIMessageChunk("", tool_call_chunks=[{**chunk, "type": "tool_call_chunk"}])


def main() -> None:
    """Ask each question, stream the answer, and show what the agent remembers in the end."""
    agent = create_agent(
        ScriptedModel(),
        [weather, post],
        middleware=[SafeguardMiddleware(check_every=8)],
        checkpointer=InMemorySaver(),
    )
    config: RunnableConfig = {"configurable": {"thread_id": "example"}}
    for question in QUESTIONS:
        print(f"\nuser:  {question}\nagent: ", end="")
        asked: Any = {"messages": [("user", question)]}
        for part, _ in agent.stream(asked, config, stream_mode="messages"):
            if isinstance(part, AIMessage):
                print(part.text, end="", flush=True)
        print()

    print("\nWhat the agent remembers:")
    for message in agent.get_state(config).values["messages"]:
        record = message.response_metadata.get("safeguard", {})
        what = message.text or " ".join(call["name"] + "(...)" for call in message.tool_calls)
        note = f"   <- {record['side']}: {', '.join(record['categories'])}" if record else ""
        print(f"  {message.type:5}  {what}{note}")
    saved = "".join(map(repr, agent.get_state_history(config)))
    print(f"\nThe cruel answer is in a checkpoint: {CRUEL in saved}; it was posted: {bool(posted)}")


if __name__ == "__main__":
    main()
