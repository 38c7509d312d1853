"""The seam between guards and what runs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from langchain_safeguard.taxonomy import Side
from langchain_safeguard.verdict import Span


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a guard asks its model.

    Attributes:
        text: The text to judge.
        context: What led to it, where the model reads that apart from the text.
        side: The side on which it is judged.
    """

    text: str
    context: str | None = None
    side: Side = "input"


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model answered.

    Attributes:
        scores: A probability per label of the model.
        spans: The windows in which a long text was judged.
        tokens: How many tokens the model read.
    """

    scores: Mapping[str, float] = field(default_factory=dict)
    spans: tuple[Span, ...] = ()
    tokens: int | None = None


class Engine(Protocol):
    """Runs one model."""

    def run(self, prompts: Sequence[Prompt]) -> list[Completion]:
        """Answer several prompts in one go, in their order."""
        ...
