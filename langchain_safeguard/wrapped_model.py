"""A chat model around another one: it answers, counts and describes itself as the other does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, cast

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForLLMRun,
    CallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import BaseChatModel, LanguageModelInput, ModelProfile
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatResult
from langchain_core.runnables import Runnable, RunnableConfig

from langchain_safeguard.hushed import is_operators
from langchain_safeguard.llm_run import StreamedRun

RUN = "_safeguard_run"
"""The keyword under which `_stream` and `_generate` learn of their run; no one outside sees it."""


class WrappedChatModel(BaseChatModel):
    """A chat model around another one, whose `_stream` knows the run it belongs to.

    Attributes:
        model: The inner model, bound or not.
    """

    model: Runnable[Any, Any]

    def __init__(self, **kwargs: Any) -> None:
        """Take over what the inner model has for those who watch its runs."""
        super().__init__(**kwargs)
        inner = chat_model_in(self.model)
        if inner is None:
            return
        attached = inner.callbacks
        handlers = attached if isinstance(attached, list) else getattr(attached, "handlers", [])
        if self.callbacks is None:
            self.callbacks = [handler for handler in handlers if not is_operators(handler)] or None
        if self.tags is None:
            self.tags = inner.tags

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        inner = chat_model_in(self.model)
        return inner._identifying_params if inner else {}

    def _resolve_model_profile(self) -> ModelProfile | None:
        inner = chat_model_in(self.model)
        return inner.profile if inner else None

    def get_token_ids(self, text: str) -> list[int]:
        """Count as the inner model does."""
        inner = chat_model_in(self.model)
        return inner.get_token_ids(text) if inner else super().get_token_ids(text)

    def get_num_tokens(self, text: str) -> int:
        """Count as the inner model does."""
        inner = chat_model_in(self.model)
        return inner.get_num_tokens(text) if inner else super().get_num_tokens(text)

    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[Any] | None = None
    ) -> int:
        """Count as the inner model does."""
        inner = chat_model_in(self.model)
        count = inner.get_num_tokens_from_messages if inner else None
        return (count or super().get_num_tokens_from_messages)(messages, tools)

    def stream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        """Stream the checked answer."""
        run = StreamedRun(config, CallbackManager)
        yield from super().stream(input, run.config, stop=stop, **{**kwargs, RUN: run})

    async def astream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        """Stream the checked answer."""
        run = StreamedRun(config, AsyncCallbackManager)
        chunks = cast(Any, super()).astream(input, run.config, stop=stop, **{**kwargs, RUN: run})
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    def _generate_with_cache(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        # When somebody streams, the base class calls `_stream` without its run.
        return super()._generate_with_cache(
            messages, stop=stop, run_manager=run_manager, **{**kwargs, RUN: run_manager}
        )

    async def _agenerate_with_cache(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return await super()._agenerate_with_cache(
            messages, stop=stop, run_manager=run_manager, **{**kwargs, RUN: run_manager}
        )

    def _get_invocation_params(
        self, stop: list[str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        kwargs.pop(RUN, None)
        return super()._get_invocation_params(stop=stop, **kwargs)

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        kwargs.pop(RUN, None)
        inner = chat_model_in(self.model)
        return (inner._get_ls_params if inner else super()._get_ls_params)(stop=stop, **kwargs)


def chat_model_in(runnable: Any) -> BaseChatModel | None:
    """Find the chat model inside bindings, retries and fallbacks."""
    while runnable is not None and not isinstance(runnable, BaseChatModel):
        inside = (getattr(runnable, name, None) for name in ("bound", "runnable", "default"))
        runnable = next((inner for inner in inside if isinstance(inner, Runnable)), None)
    return runnable
