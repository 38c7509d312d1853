"""Letting a guarded model be heard, though all around it runs quietly.

In an agent the model is called by other people's code, which may do with the call what it likes:
ask twice, ask another model. `staged` hushes that code as a whole. A model that judges its answers
steps in front of those who listened before with `on_stage`; any other one stays unheard.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config, var_child_runnable_config

from langchain_safeguard.hushed import (
    GRAPH_STREAMS,
    STAGE,
    handlers_in,
    holding,
    hooks,
    hushed,
    quiet,
)


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a guarded model may be heard, though all around it runs quietly.

    Attributes:
        guards: Whoever has to have judged an answer before it may be heard.
        audience: The context variables through which handlers listen, with their values.
    """

    guards: tuple[object, ...]
    audience: tuple[tuple[ContextVar[Any], Any], ...]


@contextmanager
def staged(guard: object) -> Iterator[None]:
    """Run other people's code quietly, around a model that may be heard: see `on_stage`.

    Stages nest: a model has to be guarded by all of them to be heard.

    Args:
        guard: Stands for one guard; compared by identity.
    """
    around: Stage | None = STAGE.get()
    variables = [var_child_runnable_config, *(v for v, *_ in hooks())]
    audience = around.audience if around else tuple((v, v.get()) for v in variables)
    guards = (*(around.guards if around else ()), guard)
    with quiet(hushed()), holding(STAGE, Stage(guards, audience)):
        yield


@contextmanager
def on_stage(
    guards: Collection[object], config: RunnableConfig | None = None
) -> Iterator[RunnableConfig | None]:
    """Let those who listened before `staged` hear what is done in here, if they may.

    Args:
        guards: Who judges what is done in here before it is heard.
        config: The config to do it with, which may have come from the quiet context.

    Yields:
        The config to do it with.
    """
    stage: Stage | None = STAGE.get()
    if stage is None or not all(any(g is own for own in guards) for g in stage.guards):
        yield config
        return
    with ExitStack() as stack:
        stack.enter_context(holding(STAGE, None))
        for variable, value in stage.audience:
            stack.enter_context(holding(variable, value))
        yield config and _loud(config)


def _loud(config: RunnableConfig) -> RunnableConfig:
    """Give a config that was made in a quiet context the handlers of the context it runs in now."""
    around = ensure_config()
    callbacks = around.get("callbacks")
    known = handlers_in(callbacks)
    added = [handler for handler in handlers_in(config.get("callbacks")) if handler not in known]
    if isinstance(callbacks, BaseCallbackManager):
        for handler in added:
            callbacks.add_handler(handler)
    else:
        callbacks = [*known, *added]
    streams = {key: around.get("configurable", {}).get(key) for key in GRAPH_STREAMS}
    streams = {key: value for key, value in streams.items() if value is not None}
    configurable = {**config.get("configurable", {}), **streams}
    return {**config, "callbacks": callbacks, "configurable": configurable}
