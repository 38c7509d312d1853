"""Guarding retrieval: what a retriever finds is checked before a model reads it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from langchain_core.documents import BaseDocumentTransformer, Document
from langchain_core.runnables import RunnableConfig, RunnableSerializable
from langchain_core.runnables.config import ensure_config
from pydantic import ConfigDict, PrivateAttr

from langchain_safeguard.documents.work import DocumentWork, OnBlock
from langchain_safeguard.either import check_either
from langchain_safeguard.errors import (
    ConfigurationError,
    UnreadableInputError,
)
from langchain_safeguard.excision import PartRewriter
from langchain_safeguard.guards import Guard
from langchain_safeguard.policy import Policy
from langchain_safeguard.safeguard import Safeguard

_ON_BLOCK = ("drop", "redact", "empty", "raise")


class DocumentGuard(RunnableSerializable[Any, list[Document]], BaseDocumentTransformer):
    """Checks documents, and lets the model read only those that pass.

    Each is judged by itself, on the side `tool_output`: what it says is data, and an instruction in
    it is an attack. All documents of a call, and of a `batch`, are judged in one pass of the guard.
    The decision about each stands in its `metadata["safeguard"]`; the originals are not changed.

    Behind a plain `|`, the retriever's own events still show what it found, to whoever listens to
    the whole chain. `guard_retriever` makes a retriever that shows only what passed.

    Args:
        guard: What judges: a name, a folder, a `Guard`, or several; the embedded guard if left out.
        policy: What to do about what it sees; the default policy if left out. A document that it
            has rewritten loses only the part that offends.
        safeguard: Instead of `guard` and `policy`: a `Safeguard`, which may be shared.
        on_block: What becomes of a blocked document. `"drop"` leaves it out. `"redact"` cuts out
            the part that offends, and drops the document if that is not enough. `"empty"` keeps its
            place, and nothing of its text or metadata. `"raise"` raises `ContentBlockedError`.
        fields: The names of metadata, such as `"title"`, that your prompt shows, too: they are
            judged and rewritten like the text.

    Raises:
        ConfigurationError: A value is wrong; the message names it and what is allowed.

    Example:
        ```python
        chain = {"context": retriever | DocumentGuard(), "question": RunnablePassthrough()} | prompt
        ```
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    safeguard: Any = None
    on_block: OnBlock = "drop"
    fields: tuple[str, ...] = ()
    _rewriter: PartRewriter = PrivateAttr()

    def __init__(
        self,
        guard: str | Path | Guard | Sequence[str | Path | Guard] | None = None,
        policy: Policy | Mapping[str, Any] | str | Path | None = None,
        *,
        safeguard: Safeguard | None = None,
        on_block: OnBlock = "drop",
        fields: Collection[str] = (),
        name: str | None = None,
    ) -> None:
        """Check the values and load the guard."""
        check_either(safeguard, guard, policy)
        if on_block not in _ON_BLOCK:
            raise ConfigurationError.unknown("on_block", on_block, _ON_BLOCK)
        if isinstance(fields, str) or not all(isinstance(field, str) for field in fields):
            raise ConfigurationError(f"fields={fields!r}; allowed: a list of names of metadata")
        safeguard = safeguard or Safeguard(guard, policy)
        safeguard.require("tool_output")
        options: dict[str, Any] = {
            "safeguard": safeguard,
            "on_block": on_block,
            "fields": tuple(fields),
            "name": name,
        }
        super().__init__(**options)
        self._rewriter = PartRewriter(safeguard, "tool_output")

    def invoke(
        self, input: Sequence[Document], config: RunnableConfig | None = None, **kwargs: Any
    ) -> list[Document]:
        """Return the documents that may be read.

        Raises:
            ContentBlockedError: One is blocked, and `on_block` is `"raise"`.
            UnreadableInputError: The input is something else than documents.
        """
        found = _documents(input)
        # Whoever listens learns how many there were, and not what they said.
        call: Any = self._call_with_config
        kept: list[Document] = call(
            lambda _, config: self._guarded([found], [config])[0], _count(found), config
        )
        return kept

    async def ainvoke(
        self, input: Sequence[Document], config: RunnableConfig | None = None, **kwargs: Any
    ) -> list[Document]:
        """Return the documents that may be read; see `invoke`."""
        found = _documents(input)

        async def check(_: str, config: RunnableConfig) -> Any:
            return (await self._aguarded([found], [config]))[0]

        call: Any = self._acall_with_config
        kept: list[Document] = await call(check, _count(found), config)
        return kept

    def batch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """Check the documents of several calls in one pass of the guard; see `invoke`."""
        found = [_documents_or_error(value, return_exceptions) for value in inputs]
        call: Any = self._batch_with_config

        def check(_: list[str], config: list[RunnableConfig]) -> list[Any]:
            return self._guarded(found, config, excepting=return_exceptions)

        counts = [*map(_count, found)]
        kept: list[Any] = call(check, counts, config, return_exceptions=return_exceptions)
        return kept

    async def abatch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """Check the documents of several calls in one pass of the guard; see `invoke`."""
        found = [_documents_or_error(value, return_exceptions) for value in inputs]
        call: Any = self._abatch_with_config

        async def check(_: list[str], config: list[RunnableConfig]) -> list[Any]:
            return await self._aguarded(found, config, excepting=return_exceptions)

        counts = [*map(_count, found)]
        kept: list[Any] = await call(check, counts, config, return_exceptions=return_exceptions)
        return kept

    def transform_documents(
        self, documents: Sequence[Document], **kwargs: Any
    ) -> Sequence[Document]:
        """Return the documents that may be read; see `invoke`."""
        kept: list[Document] = self._guarded([_documents(documents)], [ensure_config()])[0]
        return kept

    async def atransform_documents(
        self, documents: Sequence[Document], **kwargs: Any
    ) -> Sequence[Document]:
        """Return the documents that may be read; see `invoke`."""
        [kept] = await self._aguarded([_documents(documents)], [ensure_config()])
        found: list[Document] = kept
        return found

    def _guarded(
        self,
        calls: Sequence[list[Document] | Exception],
        configs: Sequence[RunnableConfig],
        excepting: bool = False,
    ) -> list[Any]:
        work = DocumentWork(self.fields, calls, configs)
        check = self._rewriter.safeguard.batch
        work.decide(check(work.texts, side="tool_output", configs=work.configs))
        if self.on_block == "redact" and work.blocked:
            better = self._rewriter.excise(work.blocked)
            work.redact(better, check(better, side="tool_output", configs=work.blocked_configs))
        return work.results(self.on_block, excepting)

    async def _aguarded(
        self,
        calls: Sequence[list[Document] | Exception],
        configs: Sequence[RunnableConfig],
        excepting: bool = False,
    ) -> list[Any]:
        work = DocumentWork(self.fields, calls, configs)
        check = self._rewriter.safeguard.abatch
        work.decide(await check(work.texts, side="tool_output", configs=work.configs))
        if self.on_block == "redact" and work.blocked:
            better = await self._rewriter.aexcise(work.blocked)
            configs = work.blocked_configs
            work.redact(better, await check(better, side="tool_output", configs=configs))
        return work.results(self.on_block, excepting)


def _documents(value: Any) -> list[Document]:
    if isinstance(value, Document):
        return [value]
    if isinstance(value, list | tuple) and all(isinstance(item, Document) for item in value):
        return [*value]
    raise UnreadableInputError(
        f"a {type(value).__name__} is no list of documents; put DocumentGuard right behind the "
        "retriever"
    )


def _documents_or_error(value: Any, excepting: bool) -> list[Document] | Exception:
    try:
        return _documents(value)
    except UnreadableInputError as error:
        if not excepting:
            raise
        return error


def _count(documents: list[Document] | Exception) -> str:
    if isinstance(documents, Exception):
        return type(documents).__name__
    return f"{len(documents)} documents"
