"""What steps would have returned, told without calling them: the type of their refusal."""

from __future__ import annotations

from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from langchain_core.language_models import BaseChatModel, BaseLanguageModel, BaseLLM
from langchain_core.messages import BaseMessage
from langchain_core.runnables import (
    Runnable,
    RunnableBranch,
    RunnablePassthrough,
    RunnableSequence,
    RunnableWithFallbacks,
)
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.configurable import DynamicRunnable

from langchain_safeguard.runnables.gate import Kind


def kind_of(runnable: Runnable[Any, Any]) -> Kind | None:
    """Tell whether a runnable returns a message, text, or (`None`) something else or unknown."""
    match runnable:
        case BaseChatModel():
            return "message"
        case BaseLLM():
            return "text"
        case RunnableBindingBase(custom_output_type=None, bound=bound):
            return kind_of(bound)
        case RunnableWithFallbacks(runnable=first):
            return kind_of(first)
        case DynamicRunnable(default=default):
            return kind_of(default)
        case RunnableBranch(default=default, branches=branches):
            kinds = {kind_of(default), *(kind_of(branch) for _, branch in branches)}
            return kinds.pop() if len(kinds) == 1 else None
        case RunnableSequence(steps=steps):
            # A passthrough returns what came before it.
            told = [step for step in steps if type(step) is not RunnablePassthrough]
            return kind_of(told[-1]) if told else None
    try:
        output: Any = runnable.OutputType
        if isinstance(output, str):
            # A function from a module with `from __future__ import annotations`.
            function = getattr(runnable, "func", None) or getattr(runnable, "afunc", None)
            output = get_type_hints(function).get("return")
        return _kind_of_type(output)
    except (TypeError, NameError, AttributeError):
        # Annotations that cannot be read say nothing.
        return None


def is_model(runnable: Runnable[Any, Any]) -> bool:
    """Tell whether a runnable is a language model, bound, configurable or with fallbacks."""
    match runnable:
        case BaseLanguageModel():
            return True
        case RunnableBindingBase(bound=inner):
            return is_model(inner)
        case RunnableWithFallbacks(runnable=inner):
            return is_model(inner)
        case DynamicRunnable(default=inner):
            return is_model(inner)
    return False


def _kind_of_type(output: Any) -> Kind | None:
    origin = get_origin(output)
    if origin is not None and origin not in (Union, UnionType) and get_args(output):
        # `Annotated[X, ...]`, as in `AnyMessage`, is looked into; `list[X]` is something else.
        return _kind_of_type(get_args(output)[0]) if hasattr(output, "__metadata__") else None
    members = get_args(output) or (output,)
    if members != (output,):
        kinds = {_kind_of_type(member) for member in members}
        return kinds.pop() if len(kinds) == 1 else None
    if not isinstance(output, type):
        return None
    if issubclass(output, str):
        return "text"
    return "message" if issubclass(output, BaseMessage) else None
