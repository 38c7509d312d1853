"""What there is to judge in lists of documents, and what becomes of them: logic only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from langchain_core.documents import Document
from langchain_core.runnables import RunnableConfig

from langchain_safeguard.decision import Decision
from langchain_safeguard.errors import ContentBlockedError
from langchain_safeguard.policy import Action
from langchain_safeguard.refusal import RECORD

OnBlock = Literal["drop", "redact", "empty", "raise"]

WITHHELD = "[This document was withheld.]"
"""What stands in place of a blocked document's text with `on_block="empty"`."""


@dataclass(slots=True)
class _Part:
    """One text of a document: its own, or that of a field."""

    call: int
    document: int
    field: str | None
    text: str
    decision: Decision | None = None


class DocumentWork:
    """What there is to judge in several lists of documents, and what came of it.

    Args:
        fields: The names of metadata that are judged, too.
        calls: The documents of each call, or the error that stands in their place.
        configs: The config of each call.
    """

    def __init__(
        self,
        fields: Sequence[str],
        calls: Sequence[list[Document] | Exception],
        configs: Sequence[RunnableConfig],
    ) -> None:
        """Find what there is to judge."""
        self._calls = calls
        self._configs = configs
        self._parts = [
            _Part(at, number, field, text)
            for at, documents in enumerate(calls)
            if not isinstance(documents, Exception)
            for number, document in enumerate(documents)
            for field, text in _texts(document, fields)
        ]

    @property
    def texts(self) -> list[str]:
        """Return all texts to judge."""
        return [part.text for part in self._parts]

    @property
    def configs(self) -> list[RunnableConfig]:
        """Return the config of the call that each text belongs to."""
        return [self._configs[part.call] for part in self._parts]

    @property
    def _refused(self) -> list[_Part]:
        return [part for part in self._parts if part.decision and part.decision.blocked]

    @property
    def blocked(self) -> list[str]:
        """Return the texts that were blocked."""
        return [part.text for part in self._refused]

    @property
    def blocked_configs(self) -> list[RunnableConfig]:
        """Return the config of the call that each of these belongs to."""
        return [self._configs[part.call] for part in self._refused]

    def decide(self, decisions: Sequence[Decision]) -> None:
        """Take the decisions about all texts."""
        for part, decision in zip(self._parts, decisions, strict=True):
            part.decision = decision

    def redact(self, texts: Sequence[str], decisions: Sequence[Decision]) -> None:
        """Take what the blocked texts are now, and the decisions about that."""
        for part, text, again in zip(self._refused, texts, decisions, strict=True):
            if part.decision and again.passes:
                part.decision = replace(part.decision, action=Action.REWRITE, text=text)

    def results(self, on_block: OnBlock, excepting: bool) -> list[Any]:
        """Return the documents of each call that may be read."""
        results: list[Any] = []
        parts: dict[tuple[int, int], list[_Part]] = {}
        for part in self._parts:
            parts.setdefault((part.call, part.document), []).append(part)
        for at, documents in enumerate(self._calls):
            if isinstance(documents, Exception):
                results.append(documents)
                continue
            kept: list[Document] = []
            try:
                for number, document in enumerate(documents):
                    kept += _kept(document, parts[at, number], on_block)
            except ContentBlockedError as error:
                if not excepting:
                    raise
                results.append(error)
            else:
                results.append(kept)
        return results


def _kept(document: Document, parts: Sequence[_Part], on_block: OnBlock) -> list[Document]:
    """Return the document as it may be read, or nothing."""
    decisions = [part.decision for part in parts if part.decision is not None]
    strictest = max(decisions, key=lambda decision: decision.action.severity)
    summary = strictest.summary()
    if strictest.blocked:
        if on_block == "raise":
            raise ContentBlockedError(strictest)
        if on_block != "empty":
            return []
        return [Document(WITHHELD, id=document.id, metadata={RECORD: summary})]
    content, metadata = document.page_content, {**document.metadata, RECORD: summary}
    for part in parts:
        if part.decision is None or part.decision.action is not Action.REWRITE:
            continue
        if part.field is None:
            content = part.decision.text
        else:
            metadata[part.field] = part.decision.text
    return [document.model_copy(update={"page_content": content, "metadata": metadata})]


def _texts(document: Document, fields: Sequence[str]) -> list[tuple[str | None, str]]:
    shown = [(name, document.metadata.get(name)) for name in fields]
    return [
        (None, document.page_content),
        *(
            (name, value if isinstance(value, str) else str(value))
            for name, value in shown
            if value
        ),
    ]
