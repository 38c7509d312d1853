"""A chat model that is guarded on every channel: the tightest wrapper there is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Literal, cast

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import BaseChatModel, BaseLLM, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableBinding, RunnableConfig
from langchain_core.tools import BaseTool
from pydantic import BaseModel, Field

from langchain_safeguard.chat_models.call import GuardedCall
from langchain_safeguard.chat_models.llm_run import LLMRun, OpeningRun, children_of
from langchain_safeguard.chat_models.wrapped import RUN, WrappedChatModel, chat_model_in
from langchain_safeguard.either import check_either
from langchain_safeguard.errors import ConfigurationError
from langchain_safeguard.guards import Guard
from langchain_safeguard.hushed import rebuilt
from langchain_safeguard.policy import Policy
from langchain_safeguard.safeguard import Safeguard
from langchain_safeguard.streaming.guarded_stream import OnBlock

Mode = Literal["sequential", "parallel"]
ToolLike = dict[str, Any] | type | Callable[..., Any] | BaseTool

_OPTIONS: dict[str, tuple[Any, ...]] = {
    "check_input": (True, False),
    "check_output": (True, False),
    "on_block": ("refuse", "raise"),
    "mode": ("sequential", "parallel"),
    # LangChain's cache would hand out what another policy let pass; the inner model has its own.
    "cache": (None, False),
}


class GuardedChatModel(WrappedChatModel):
    """A chat model around another one, whose input and output are checked.

    Nothing unchecked leaves it: not through `invoke`, `stream` or events, not through callbacks,
    LangGraph's streams or checkpoints. The inner model runs hushed: only tracers such as
    LangSmith's hear it, as a child of this model's run. Handlers attached to the inner model
    (`ChatX(callbacks=[...])`) hear this model instead.

    A blocked input is answered with a refusal, and the inner model is not called. A blocked answer
    is replaced by one; its tool calls and reasoning go with it. Streams are held back and checked
    in windows; see `guarded_stream`. With `n > 1` there is still one answer. LangChain's response
    cache works for the inner model only, and what comes out of it is checked like any answer.
    Traces show the token counts of an answer on both runs; callbacks that count hear one of them.

    In a LangGraph node, a handler that asks a person may interrupt the run. When it goes on, the
    model is not called again: the answer that was judged waits (see `held` of `Safeguard`).

    With `on_block="raise"`, mind that `with_retry()` asks again after a block and that
    `with_fallbacks()` then asks the fallback, unless told which exceptions to handle.

    Attributes:
        model: The inner model, bound or not.
        safeguard: What judges.
        check_input: Whether the input is checked.
        check_output: Whether the answer is checked.
        on_block: Whether a block returns a refusal or raises `ContentBlockedError`.
        mode: Whether the model waits for the input's check or already works meanwhile; nothing is
            released before the verdict in either case.
        check_every: After how many new tokens, estimated, a stream is checked again.

    Raises:
        ConfigurationError: An option is unknown; the message names the allowed ones.
    """

    safeguard: Any = Field(default_factory=Safeguard, exclude=True, repr=False)
    check_input: bool = True
    check_output: bool = True
    on_block: OnBlock = "refuse"
    mode: Mode = "sequential"
    check_every: int = 32

    def __init__(self, **kwargs: Any) -> None:
        """Check the options."""
        _check_options(kwargs)
        super().__init__(**{**kwargs, "cache": False})

    @property
    def _llm_type(self) -> str:
        inner = chat_model_in(self.model)
        return f"safeguard-{inner._llm_type if inner else type(self.model).__name__}"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        return {
            **super()._identifying_params,
            "safeguard": {
                "guards": [guard.name for guard in self.safeguard.guards],
                "policy": self.safeguard.policy.name,
                "input": self.check_input,
                "output": self.check_output,
            },
        }

    async def ainvoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AIMessage:
        """Return the checked answer."""
        with self.safeguard.waiting.working(config):
            return await super().ainvoke(input, config, **kwargs)

    def bind_tools(
        self, tools: Sequence[ToolLike], *, tool_choice: str | None = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Bind tools to the inner model; the result is guarded like this one."""
        if tool_choice is not None:
            kwargs["tool_choice"] = tool_choice
        bound = cast(Any, self.model).bind_tools(tools, **kwargs)
        if not isinstance(bound, RunnableBinding):
            return self.model_copy(update={"model": bound})
        # A binding around a model is what agents look into for its tools.
        binding = self.model_copy(update={"model": bound.bound}).bind(**bound.kwargs)
        return binding.with_config(bound.config) if bound.config else binding

    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """Let the inner model structure its output; the raw answer is checked before it is parsed.

        Raises:
            ContentBlockedError: When run, at a block: no refusal fits the schema.
        """
        structured = cast(Any, self.model).with_structured_output(
            schema, include_raw=include_raw, **kwargs
        )
        strict = self.model_copy(update={"on_block": "raise"})
        guarded: list[Runnable[Any, Any]] = []

        def guard(part: Runnable[Any, Any]) -> Runnable[Any, Any]:
            if not isinstance(part, BaseChatModel):
                return part
            guarded.append(part)
            return strict.model_copy(update={"model": part})

        chain = rebuilt(structured, guard, until=(GuardedChatModel,))
        if not guarded:
            raise NotImplementedError(
                f"{type(self.model).__name__}.with_structured_output() does not show where it "
                "calls the model, so its raw answer cannot be checked"
            )
        return chain

    def _call(self, run: LLMRun | OpeningRun | None, stop: Any, kwargs: Any) -> GuardedCall:
        run = kwargs.get(RUN) or run
        options = {key: value for key, value in kwargs.items() if key != RUN}
        if stop is not None:
            # Only then: a `stop` that is bound to the inner model must not be overridden by None.
            options["stop"] = stop
        return GuardedCall(
            model=self.model,
            options=options,
            config=children_of(run),
            safeguard=self.safeguard,
            check_input=self.check_input,
            check_output=self.check_output,
            on_block=self.on_block,
            parallel=self.mode == "parallel",
            every=self.check_every,
        )

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        message = self._call(run_manager, stop, kwargs).invoke(messages)
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        message = await self._call(run_manager, stop, kwargs).ainvoke(messages)
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for message in self._call(run_manager, stop, kwargs).stream(messages):
            chunk = ChatGenerationChunk(message=message)
            if run_manager:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        async with aclosing(self._call(run_manager, stop, kwargs).astream(messages)) as answer:
            async for message in answer:
                chunk = ChatGenerationChunk(message=message)
                if run_manager:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk


def guard_model(
    llm: Runnable[LanguageModelInput, Any],
    guard: str | Path | Guard | Sequence[str | Path | Guard] | None = None,
    policy: Policy | Mapping[str, Any] | str | Path | None = None,
    *,
    safeguard: Safeguard | None = None,
    input: bool = True,
    output: bool = True,
    on_block: OnBlock = "refuse",
    mode: Mode = "sequential",
    check_every: int = 32,
) -> GuardedChatModel:
    """Guard a chat model.

    Args:
        llm: Any chat model, also one with tools or settings bound to it.
        guard: What judges: a name, a folder, a `Guard`, or several; the embedded guard if left out.
        policy: What to do about what it sees; the default policy if left out.
        safeguard: Instead of `guard` and `policy`: a `Safeguard`, which may be shared.
        input: Whether to check the input.
        output: Whether to check the answer.
        on_block: `"refuse"` returns a refusal, `"raise"` raises `ContentBlockedError`.
        mode: `"sequential"`, or `"parallel"` to call the model while the input is being checked.
        check_every: After how many new tokens, estimated, a stream is checked again.

    Returns:
        A chat model that can stand wherever `llm` could.

    Raises:
        ConfigurationError: A value is wrong; the message names it and what is allowed.

    Example:
        ```python
        llm = guard_model(ChatAnything())
        llm.invoke("How do I bake bread?")
        ```
    """
    check_either(safeguard, guard, policy)
    if not input and not output:
        raise ConfigurationError("input=False and output=False leave nothing to guard")
    options: dict[str, Any] = {
        "check_input": input,
        "check_output": output,
        "on_block": on_block,
        "mode": mode,
        "check_every": check_every,
    }
    # Before the guard is loaded, which takes longer than telling what is wrong.
    _check_options({"model": llm, **options})
    return GuardedChatModel(model=llm, safeguard=safeguard or Safeguard(guard, policy), **options)


def _check_options(options: Mapping[str, Any]) -> None:
    for name, allowed in _OPTIONS.items():
        if name in options and repr(options[name]) not in map(repr, allowed):
            raise ConfigurationError.unknown(name, options[name], allowed)
    every = options.get("check_every", 1)
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise ConfigurationError(f"check_every={every!r}; allowed: 1, 2, ...")
    model = options.get("model")
    if not isinstance(model, Runnable) or isinstance(model, BaseLLM):
        raise ConfigurationError(
            f"a {type(model).__name__} is no chat model; allowed: a chat model, also one with "
            "tools or settings bound to it. For other steps use guarded()"
        )
    safeguard = options.get("safeguard")
    if safeguard is not None and not isinstance(safeguard, Safeguard):
        raise ConfigurationError(f"safeguard={safeguard!r}; allowed: a Safeguard")
