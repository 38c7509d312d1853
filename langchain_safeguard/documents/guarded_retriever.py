"""A retriever around another one, that shows only what may be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import ensure_config, patch_config
from pydantic import Field

from langchain_safeguard.documents.document_guard import DocumentGuard
from langchain_safeguard.documents.work import OnBlock
from langchain_safeguard.errors import ConfigurationError
from langchain_safeguard.guards import Guard
from langchain_safeguard.hushed import attached, hushed, muted, quiet
from langchain_safeguard.policy import Policy
from langchain_safeguard.safeguard import Safeguard


class GuardedRetriever(BaseRetriever):
    """A retriever whose documents are checked before anyone sees them.

    The inner retriever runs hushed: only tracers such as LangSmith's hear it.

    Attributes:
        retriever: The inner retriever.
        documents: What checks.
    """

    retriever: Runnable[str, Any]
    documents: DocumentGuard = Field(exclude=True, repr=False)

    def invoke(
        self, input: str, config: RunnableConfig | None = None, **kwargs: Any
    ) -> list[Document]:
        """Return the documents that may be read."""
        return super().invoke(input, config, settings=ensure_config(config), **kwargs)

    async def ainvoke(
        self, input: str, config: RunnableConfig | None = None, **kwargs: Any
    ) -> list[Document]:
        """Return the documents that may be read."""
        return await super().ainvoke(input, config, settings=ensure_config(config), **kwargs)

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        settings: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        config = patch_config(settings, callbacks=run_manager.get_child())
        quieter = hushed(config)
        with quiet(quieter):
            found = self.retriever.invoke(query, quieter, **kwargs)
        return self.documents.invoke(found, config)

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        settings: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        config = patch_config(settings, callbacks=run_manager.get_child())
        quieter = hushed(config)
        with quiet(quieter):
            found = await self.retriever.ainvoke(query, quieter, **kwargs)
        return await self.documents.ainvoke(found, config)


def guard_retriever(
    retriever: Runnable[str, Any],
    guard: str | Path | Guard | Sequence[str | Path | Guard] | None = None,
    policy: Policy | Mapping[str, Any] | str | Path | None = None,
    *,
    safeguard: Safeguard | None = None,
    on_block: OnBlock = "drop",
    fields: Sequence[str] = (),
) -> GuardedRetriever:
    """Guard a retriever: nobody sees a document that does not pass.

    Args:
        retriever: Any retriever, or chain from a question to documents.
        guard: What judges; see `DocumentGuard`, also for the other arguments.
        policy: What to do about what it sees.
        safeguard: Instead of `guard` and `policy`.
        on_block: What becomes of a blocked document.
        fields: The names of metadata that are judged, too.

    Returns:
        A retriever that can stand wherever `retriever` could.

    Raises:
        ConfigurationError: A value is wrong; the message names it and what is allowed.

    Example:
        ```python
        tool = create_retriever_tool(guard_retriever(retriever), "search", "Searches the wiki.")
        ```
    """
    if not isinstance(retriever, Runnable):
        raise ConfigurationError(
            f"a {type(retriever).__name__} is no retriever; allowed: a Runnable from a question to "
            "documents"
        )
    guarding = DocumentGuard(guard, policy, safeguard=safeguard, on_block=on_block, fields=fields)
    options: dict[str, Any] = {
        "callbacks": attached(retriever) or None,
        "tags": getattr(retriever, "tags", None),
        "metadata": getattr(retriever, "metadata", None),
    }
    return GuardedRetriever(retriever=muted(retriever), documents=guarding, **options)
