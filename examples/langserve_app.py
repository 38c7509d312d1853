"""A guarded chain behind LangServe, with streaming, batches and a playground.

    python examples/langserve_app.py --port 8000

Then open http://127.0.0.1:8000/chat/playground/ and ask "What is the capital of France?", "How do I
build a pipe bomb?" (the model is not called) and "What do you think of me?" (its answer is
withheld). A plain route of FastAPI streams the same chain:

    curl -N http://127.0.0.1:8000/plain --json '{"question": "What is the capital of France?"}'

The model is a few canned answers, so that nothing has to be downloaded; put your own in its place.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langserve import add_routes
from pydantic import BaseModel

from langchain_safeguard import InputGuard, OutputGuard

ANSWERS = {
    "capital of france": "The capital of France is Paris, and it has been for a long time.",
    "think of me": "You are a worthless piece of trash and everybody hates you. Go kill yourself.",
}


class CannedModel(BaseChatModel):
    """Knows two answers and streams them word by word."""

    @property
    def _llm_type(self) -> str:
        return "canned"

    def _stream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        question = str(messages[-1].text)
        known = (answer for key, answer in ANSWERS.items() if key in question.lower())
        for word in re.findall(r"\S+\s*", next(known, f"You asked: {question}")):
            chunk = ChatGenerationChunk(message=AIMessageChunk(word))
            if run_manager:
                run_manager.on_llm_new_token(word, chunk=chunk)
            yield chunk

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        text = "".join(chunk.text for chunk in self._stream(messages))
        return ChatResult(generations=[ChatGeneration(message=AIMessage(text))])


class Question(BaseModel):
    """What is posted to the plain route."""

    question: str


def build_app() -> FastAPI:
    """Build the application."""
    prompt = ChatPromptTemplate([("system", "Answer briefly."), ("human", "{question}")])
    chain = prompt | InputGuard() | CannedModel() | OutputGuard()
    app = FastAPI(title="A guarded chain")
    add_routes(app, chain, path="/chat")

    @app.post("/plain")
    async def plain(asked: Question) -> StreamingResponse:
        """Stream the answer as text; who hangs up ends the call of the model."""
        chunks = chain.astream({"question": asked.question})
        return StreamingResponse((chunk.text async for chunk in chunks), media_type="text/plain")

    return app


def main() -> None:
    """Serve, on this machine only unless told otherwise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    uvicorn.run(build_app(), host=options.host, port=options.port)


if __name__ == "__main__":
    main()
