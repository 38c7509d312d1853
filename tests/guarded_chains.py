"""Ways to write a guarded chain, and ways to call one: what the tests of chains multiply."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough

from langchain_safeguard import InputGuard, OutputGuard, Policy, Rule
from tests.chat_models import StreamingChatModel
from tests.word_guard import WordGuard

WORDS = {
    "bomb": "indiscriminate_weapons",
    "darn": "profanity",
    "0123": "privacy",
}
POLICY = Policy(
    rules=(
        Rule("profanity", "flag"),
        Rule("privacy", "rewrite", rewrite=lambda text: text.replace("0123", "[number]")),
    ),
    message="No.",
)
SAFE_ANSWER = "Bread needs flour, water, salt and time. " * 6


class Notes(BaseRetriever):
    """Finds the same document for every question."""

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return [Document("Sourdough is old.")]


def word_guard() -> WordGuard:
    """Make the guard of these tests."""
    return WordGuard(WORDS)


PROMPT = ChatPromptTemplate([("system", "Be brief."), ("human", "{question}")])
RAG_PROMPT = ChatPromptTemplate([("system", "Notes: {notes}"), ("human", "{question}")])

FRONTS = ["nothing", "prompt", "dict", "lambda", "retriever"]


def write(
    front: str,
    tail: str,
    model: Runnable[Any, Any],
    guard: WordGuard,
    **entry: Any,
) -> Runnable[Any, Any]:
    """Write a guarded chain as a user would, from left to right."""
    opening: Any = InputGuard(guard, POLICY, **entry)
    match front:
        case "nothing":
            chain = opening
        case "prompt":
            chain = PROMPT | opening
        case "dict":
            chain = {"question": RunnablePassthrough()} | PROMPT | opening
        case "lambda":
            chain = RunnableLambda(lambda q: {"question": q}) | PROMPT | opening
        case "retriever":
            chain = {"notes": Notes(), "question": RunnablePassthrough()} | RAG_PROMPT | opening
    closing = OutputGuard(guard, POLICY, check_every=8)
    match tail:
        case "model":
            return chain | model | closing
        case "parser behind":
            return chain | model | closing | StrOutputParser()
        case "parser inside":
            return chain | model | StrOutputParser() | closing
        case "several inside":
            return chain | RunnablePassthrough() | model.bind(stop=["###"]) | closing
        case "steps behind":
            return chain | model | closing | StrOutputParser() | RunnableLambda(str.strip)
    raise AssertionError(tail)


TAILS = ["model", "parser behind", "parser inside", "several inside", "steps behind"]
METHODS = [
    "invoke",
    "ainvoke",
    "batch",
    "abatch",
    "stream",
    "astream",
    "transform",
    "atransform",
    "astream_events_v1",
    "astream_events_v2",
    "astream_log",
]


def value_for(front: str, question: str) -> Any:
    """Return the input of a chain that begins with `front`."""
    return {"question": question} if front == "prompt" else question


async def call(chain: Runnable[Any, Any], method: str, value: Any) -> Any:
    """Call a chain in one of the ways there are, and return its whole output."""
    match method:
        case "invoke":
            return chain.invoke(value)
        case "ainvoke":
            return await chain.ainvoke(value)
        case "batch":
            return chain.batch([value])[0]
        case "abatch":
            return (await chain.abatch([value]))[0]
        case "stream":
            return whole([*chain.stream(value)])
        case "astream":
            return whole([chunk async for chunk in chain.astream(value)])
        case "transform":
            return whole([*chain.transform(iter([value]))])
        case "atransform":
            return whole([chunk async for chunk in chain.atransform(_once(value))])
        case "astream_log":
            state = None
            async for patch in chain.astream_log(value):
                state = patch if state is None else state + patch
            return state.state["final_output"]
    version = method[-2:]
    ends = [e async for e in chain.astream_events(value, version=version)]
    return ends[-1]["data"]["output"]


async def _once(value: Any) -> AsyncIterator[Any]:
    yield value


def whole(chunks: list[Any]) -> Any:
    """Add chunks up."""
    total = chunks[0]
    for chunk in chunks[1:]:
        total = total + chunk
    return total


def text_of(output: Any) -> str:
    """Return the text of a message or a text."""
    return output.text if isinstance(output, BaseMessage) else str(output)


def record_of(output: Any) -> dict[str, Any] | None:
    """Return the record in a message's metadata."""
    assert isinstance(output, AIMessage)
    return output.response_metadata.get("safeguard")


def answering(answer: Any = SAFE_ANSWER) -> StreamingChatModel:
    """Make a chat model that says one thing."""
    return StreamingChatModel(script=answer)
