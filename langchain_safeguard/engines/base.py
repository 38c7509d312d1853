"""The seam between guards and what runs them.

Two kinds of models run behind it. A text classifier reads a `TextInput` and gives `TextScores`. A
language model reads a `Prompt` and gives a `Completion`.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from langchain_safeguard.engines.batching import MicroBatcher
from langchain_safeguard.taxonomy import Side
from langchain_safeguard.verdict import Span


@dataclass(frozen=True, slots=True)
class TextInput:
    """What a guard asks a text classifier.

    Attributes:
        text: The text to judge.
        context: What led to it, where the model reads that apart from the text.
        side: The side on which it is judged.
    """

    text: str
    context: str | None = None
    side: Side = "input"


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of a long text, judged by itself.

    Attributes:
        start: Its first character.
        end: One past its last character.
        scores: A probability per label of the model.
    """

    start: int
    end: int
    scores: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class TextScores:
    """What a text classifier answered.

    Attributes:
        scores: A probability per label of the model; of a long text, the highest in any window.
        spans: The windows in which a long text was judged, where labels are hazards.
        tokens: How many tokens the model read.
        stretches: The windows in which a long text was judged, where only the guard's family knows
            which labels are hazards.
        exclusive: Whether labels exclude each other, so that their probabilities add up to 1.
    """

    scores: Mapping[str, float] = field(default_factory=dict)
    spans: tuple[Span, ...] = ()
    tokens: int | None = None
    stretches: tuple[Stretch, ...] = ()
    exclusive: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a prompt.

    Attributes:
        text: Its text.
        trusted: Whether the guard wrote it. Control tokens such as `<|eot_id|>` mean something only
            there; in what users and models wrote they are letters like any other.
    """

    text: str
    trusted: bool = True


@dataclass(frozen=True, slots=True)
class Reading:
    """A point in the answer at which the probability of each choice is read.

    Attributes:
        name: What to call it in the completion.
        choices: From label to its spellings; the probabilities of a label's spellings are added.
    """

    name: str
    choices: Mapping[str, tuple[str, ...]]

    def __hash__(self) -> int:
        """Hash by content, so that what is worked out for it can be kept."""
        return hash((self.name, tuple(self.choices.items())))


@dataclass(frozen=True, slots=True)
class Writing:
    """A stretch of the answer that the model writes itself, always its likeliest next token.

    Attributes:
        limit: The most tokens it may write.
        until: Where to stop, besides the end of the answer; it is part of what comes next, whether
            the model got as far or not.
        only_if: A reading and a label of it: write only if that label is the likeliest.
    """

    limit: int
    until: str | None = None
    only_if: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a guard asks a language model.

    Attributes:
        pieces: The prompt, up to where the answer begins. The last piece is a trusted one.
        answer: The answer, from its beginning: what it is forced to say, what is read from it, and
            what the model may write.
    """

    pieces: tuple[Piece, ...]
    answer: tuple[str | Reading | Writing, ...]

    @property
    def text(self) -> str:
        """Return the prompt as one text."""
        return "".join(piece.text for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Completion:
    """What a language model answered.

    Attributes:
        readings: Per reading a probability per label; they add up to 1.
        text: The answer as a text, where the model wrote something: what was forced and what was
            written, in their order.
        tokens: How many tokens the prompt has.
    """

    readings: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    text: str | None = None
    tokens: int | None = None


Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Engine(ABC, Generic[Question, Answer]):
    """Runs one model; all that ask it share its batches.

    Attributes:
        name: What its worker thread is called.
        limit: The most tokens of a question; `None` where the engine cuts long texts by itself.
        batch: The most questions in one batch.
    """

    name = "engine"
    limit: int | None = None
    batch = 32

    def __init__(self) -> None:
        """Start without a queue."""
        self._queue: MicroBatcher[Question, Answer] | None = None
        self._queue_lock = threading.Lock()

    @abstractmethod
    def run(self, questions: Sequence[Question]) -> list[Answer]:
        """Answer several questions in one go, in their order; called by one thread at a time."""

    def measure(self, question: Question) -> int:
        """Return how many tokens a question has; asked only where there is a `limit`."""
        raise NotImplementedError

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Return the first and one past the last character of each token; likewise."""
        raise NotImplementedError

    def require(self, question: Question) -> None:
        """Make sure that the model can answer a question.

        Raises:
            GuardLoadError: Its vocabulary has no tokens for the answers.
        """

    def counts(self) -> dict[str, int]:
        """Return what it counts besides its batches: see `ModelGuard.stats`."""
        return {}

    @property
    def queue(self) -> MicroBatcher[Question, Answer]:
        """Return the queue in front of the model."""
        with self._queue_lock:
            if self._queue is None:
                self._queue = MicroBatcher(self.run, limit=self.batch, name=self.name)
            return self._queue

    def submit(self, question: Question) -> Future[Answer]:
        """Ask; the future can be waited for, awaited and cancelled."""
        return self.queue.submit(question)
