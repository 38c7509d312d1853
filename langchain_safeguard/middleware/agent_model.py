"""The chat model an agent calls in place of its own, and the list of what was judged.

The middleware cannot call the model itself: it hands a request on, and other middleware behind it
may change the request, ask twice, or put another model there. So whatever happens behind it happens
quietly; a model that judges its answers is heard, and an answer that nobody judged is found by
looking it up in the list.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from typing import Any, cast

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    message_chunk_to_message,
)
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.base import RunnableBindingBase

from langchain_safeguard.chat_models.guarded import GuardedChatModel
from langchain_safeguard.conversation import Conversation, Turn
from langchain_safeguard.refusal import is_held
from langchain_safeguard.stage import on_stage
from langchain_safeguard.streaming.guarded_stream import joined


class Ledger:
    """The answers that one middleware has judged during one model call."""

    def __init__(self) -> None:
        """Begin with none."""
        self._judged: set[tuple[Turn, ...]] = set()
        self._interrupt: Exception | None = None

    def add(self, answer: BaseMessage) -> None:
        """Note an answer as it leaves the guard: checked, rewritten, or a refusal."""
        self._judged.add(Conversation.of(answer, "output").turns)

    def interrupted_by(self, interrupt: Exception) -> None:
        """Note that a person is to be asked about an answer, which is held meanwhile."""
        self._interrupt = interrupt

    def interrupt_for(self, answers: Sequence[BaseMessage]) -> None:
        """Ask that person now, unless something else has taken the place of the answer.

        Only here: what calls the model inside may take the interrupt for a failure, and ask again.
        """
        if self._interrupt is not None and any(map(is_held, answers)):
            raise self._interrupt

    def __contains__(self, answer: BaseMessage) -> bool:
        """Tell whether this answer was judged; one that was changed since then was not."""
        return Conversation.of(answer, "output").turns in self._judged


class AgentModel(GuardedChatModel):
    """Checks the answers of an agent's model, and notes them.

    Attributes:
        ledger: Where they are noted.
    """

    ledger: Any

    def invoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AIMessage:
        """Return the checked answer."""
        with on_stage([*_ledgers(self)], config) as config:
            answer = super().invoke(input, config, **kwargs)
        self.ledger.add(answer)
        return answer

    async def ainvoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AIMessage:
        """Return the checked answer."""
        with on_stage([*_ledgers(self)], config) as config:
            answer = await super().ainvoke(input, config, **kwargs)
        self.ledger.add(answer)
        return answer

    def stream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[AIMessageChunk]:
        """Yield the checked answer; heard only by whoever asks for it, such as another guard."""
        chunks: list[AIMessageChunk] = []
        for chunk in super().stream(input, config, **kwargs):
            chunks.append(chunk)
            yield chunk
        self.ledger.add(message_chunk_to_message(joined(chunks)))

    async def astream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[AIMessageChunk]:
        """Yield the checked answer; heard only by whoever asks for it, such as another guard."""
        chunks: list[AIMessageChunk] = []
        async with aclosing(cast(Any, super()).astream(input, config, **kwargs)) as answer:
            async for chunk in answer:
                chunks.append(chunk)
                yield chunk
        self.ledger.add(message_chunk_to_message(joined(chunks)))


def _ledgers(model: Any) -> Iterator[Ledger]:
    """Find who judges the answers of a model: wherever it is asked, all of them are."""
    while isinstance(model, AgentModel | RunnableBindingBase):
        if isinstance(model, AgentModel):
            yield model.ledger
        model = model.model if isinstance(model, AgentModel) else model.bound
