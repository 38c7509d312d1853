"""Runs the classifier that ships inside the package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from langchain_safeguard.embedded import EmbeddedClassifier, Passage
from langchain_safeguard.engines.base import Completion, Prompt
from langchain_safeguard.verdict import Span


class EmbeddedEngine:
    """An engine around `EmbeddedClassifier`; labels are canonical category names.

    Args:
        folder: A checkpoint of it; `None` means the one in the package.

    Raises:
        GuardLoadError: The checkpoint is missing or damaged.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """Load the weights."""
        self._classifier = EmbeddedClassifier.load(folder)
        self.labels = self._classifier.categories
        self.revision = self._classifier.revision

    def run(self, prompts: Sequence[Prompt]) -> list[Completion]:
        """Score every window of every prompt in as few forward passes as fit."""
        passages = [Passage(text=p.text, side=p.side, prompt=p.context) for p in prompts]
        return [
            Completion(
                scores=scores.categories,
                spans=tuple(Span(w.start, w.end, w.score) for w in scores.windows),
                tokens=scores.tokens,
            )
            for scores in self._classifier.score(passages)
        ]
