"""Runs the classifier that ships inside the package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from langchain_safeguard.embedded import EmbeddedClassifier, Passage
from langchain_safeguard.engines.base import Engine, TextInput, TextScores
from langchain_safeguard.verdict import Span


class EmbeddedEngine(Engine[TextInput, TextScores]):
    """An engine around `EmbeddedClassifier`; labels are canonical category names.

    Args:
        folder: A checkpoint of it; `None` means the one in the package.

    Raises:
        GuardLoadError: The checkpoint is missing or damaged.
    """

    name = "guard-embedded"

    def __init__(self, folder: Path | None = None) -> None:
        """Load the weights."""
        super().__init__()
        self._classifier = EmbeddedClassifier.load(folder)
        self.labels = self._classifier.categories
        self.revision = self._classifier.revision

    def run(self, questions: Sequence[TextInput]) -> list[TextScores]:
        """Score every window of every text in as few forward passes as fit."""
        passages = [Passage(text=q.text, side=q.side, prompt=q.context) for q in questions]
        return [
            TextScores(
                scores=scores.categories,
                spans=tuple(Span(w.start, w.end, w.score) for w in scores.windows),
                tokens=scores.tokens,
            )
            for scores in self._classifier.score(passages)
        ]
