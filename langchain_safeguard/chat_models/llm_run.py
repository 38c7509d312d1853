"""Finding the run of a chat model from inside its `_generate` and `_stream`.

`BaseChatModel` opens a run, but does not tell `stream`'s `_stream` of it, and tells nobody of the
caller's config. What they do on their own (call another model, send an event) would then belong to
no run, and miss what was configured. `OpeningRun` listens for the run's beginning, and gives out a
config for its children.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForLLMRun,
    BaseCallbackHandler,
    BaseCallbackManager,
    CallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config

LLMRun = CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun


class OpeningRun:
    """A run that a chat model is about to open.

    Args:
        config: The caller's config.
        manager: The kind of callback manager of the run.

    Attributes:
        config: The config to open the run with.
    """

    def __init__(
        self,
        config: RunnableConfig | None,
        manager: type[CallbackManager] | type[AsyncCallbackManager],
    ) -> None:
        """Prepare the run's callbacks."""
        self.config = ensure_config(config)
        # Configured here, so that the run and its children share the tracers made on the way.
        self._children: BaseCallbackManager = manager.configure(self.config.get("callbacks"))
        self._seen = _Seen()
        opening = self._children.copy()
        opening.add_handler(self._seen, inherit=False)
        self.config["callbacks"] = opening

    def children(self) -> RunnableConfig:
        """Return the config for children of the run, once it is open."""
        manager = self._children.copy()
        manager.handlers = [*manager.inheritable_handlers]
        if self._seen.run_id is not None:
            manager.parent_run_id = self._seen.run_id
        config = self.config.copy()
        config["callbacks"] = manager
        config.pop("run_name", None)
        config.pop("run_id", None)
        return config


class _Seen(BaseCallbackHandler):
    """Remembers the first run it hears of."""

    run_inline = True

    def __init__(self) -> None:
        self.run_id: UUID | None = None

    def on_chat_model_start(self, *args: Any, run_id: UUID, **kwargs: Any) -> None:
        """Remember the run."""
        self.run_id = self.run_id or run_id


def children_of(run: LLMRun | OpeningRun | None) -> RunnableConfig:
    """Return the config for what a chat model does on its own inside its run."""
    if run is None:
        return RunnableConfig()
    if isinstance(run, OpeningRun):
        return run.children()
    is_async = isinstance(run, AsyncCallbackManagerForLLMRun)
    manager = (AsyncCallbackManager if is_async else CallbackManager)(
        handlers=[*run.inheritable_handlers],
        inheritable_handlers=[*run.inheritable_handlers],
        parent_run_id=run.run_id,
        tags=[*run.inheritable_tags],
        inheritable_tags=[*run.inheritable_tags],
        metadata={**run.inheritable_metadata},
        inheritable_metadata={**run.inheritable_metadata},
    )
    return RunnableConfig(callbacks=manager)
