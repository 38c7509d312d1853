"""What the embedded classifier is given and what it answers. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Side = Literal["input", "output", "tool_input", "tool_output"]
"""Where a text stands: the user's, the model's, a tool's arguments, a tool's result."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A text to judge.

    Attributes:
        text: The text; any `str`.
        side: Where it stands. An `output` is judged as an answer to `prompt`.
        prompt: The user's message, or the dialogue so far, that an answer answers.
    """

    text: str
    side: Side = "input"
    prompt: str | None = None


@dataclass(frozen=True, slots=True)
class WindowScore:
    """How risky one window of a passage is.

    Attributes:
        start: First character, counted in the normalised text.
        end: Character after the last.
        score: Probability of its riskiest category, in [0, 1].
    """

    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True)
class PassageScores:
    """The classifier's answer for one passage.

    Attributes:
        categories: Probability in [0, 1] of every category it can report.
        windows: The windows that were judged, in order; none for an empty text.
        tokens: How many tokens the text has; all of them were judged.
    """

    categories: Mapping[str, float]
    windows: tuple[WindowScore, ...]
    tokens: int

    @property
    def score(self) -> float:
        """Probability of the riskiest category: 0.5 is the operating point."""
        return max(self.categories.values(), default=0.0)
