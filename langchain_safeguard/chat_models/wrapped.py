"""A chat model around another one: it answers, counts and describes itself as the other does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, cast

from langchain_core.callbacks import (
    AsyncCallbackManager,
    CallbackManager,
)
from langchain_core.language_models import BaseChatModel, LanguageModelInput, ModelProfile
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.runnables import ConfigurableFieldSpec, Runnable, RunnableConfig

from langchain_safeguard.chat_models.llm_run import OpeningRun
from langchain_safeguard.hushed import attached

RUN = "_safeguard_run"
"""The keyword under which `_stream` and `_generate` learn of their run; no one outside sees it."""


class WrappedChatModel(BaseChatModel):
    """A chat model around another one, whose `_generate` and `_stream` know their run.

    The base class tells them of the run only at times, and never of the caller's config.

    Attributes:
        model: The inner model, bound or not.
    """

    model: Runnable[Any, Any]

    def __init__(self, **kwargs: Any) -> None:
        """Take over what the inner model has for those who watch its runs."""
        super().__init__(**kwargs)
        if self.callbacks is None:
            self.callbacks = attached(self.model) or None
        inner = chat_model_in(self.model)
        if self.tags is None and inner is not None:
            self.tags = inner.tags

    @property
    def model_name(self) -> str:
        """Return the inner model's name, by which LangChain's agents tell what it can do."""
        inner = chat_model_in(self.model)
        names = (getattr(inner, key, None) for key in ("model_name", "model", "model_id"))
        return next((name for name in names if name and isinstance(name, str)), self._llm_type)

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """List what of the inner model can be configured when it is called."""
        return self.model.config_specs

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

    def invoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AIMessage:
        """Return the checked answer."""
        run = OpeningRun(config, CallbackManager)
        return super().invoke(input, run.config, **{**kwargs, RUN: run})

    async def ainvoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AIMessage:
        """Return the checked answer."""
        run = OpeningRun(config, AsyncCallbackManager)
        return await super().ainvoke(input, run.config, **{**kwargs, RUN: run})

    def stream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[AIMessageChunk]:
        """Yield the checked answer."""
        run = OpeningRun(config, CallbackManager)
        yield from super().stream(input, run.config, **{**kwargs, RUN: run})

    async def astream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[AIMessageChunk]:
        """Yield the checked answer."""
        run = OpeningRun(config, AsyncCallbackManager)
        chunks = cast(Any, super()).astream(input, run.config, **{**kwargs, RUN: run})
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    def stream_events(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Return the events of the checked answer, in any version of the protocol."""
        if kwargs.get("version") == "v3":
            # The other versions listen to `stream`.
            run = OpeningRun(config, CallbackManager)
            config, kwargs = run.config, {**kwargs, RUN: run}
        return super().stream_events(input, config, **kwargs)

    def astream_events(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Any:
        """Return the events of the checked answer, in any version of the protocol."""
        if kwargs.get("version") == "v3":
            run = OpeningRun(config, AsyncCallbackManager)
            config, kwargs = run.config, {**kwargs, RUN: run}
        return super().astream_events(input, config, **kwargs)

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
