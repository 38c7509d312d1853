"""What a family of guard models is: how its models are asked, and how their answers are read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic

from langchain_safeguard.conversation import Conversation
from langchain_safeguard.engines import Completion, Prompt, TextInput, TextScores
from langchain_safeguard.engines.base import Answer, Question
from langchain_safeguard.taxonomy import SIDES, Category, Side
from langchain_safeguard.verdict import Verdict


class Family(ABC, Generic[Question, Answer]):
    """Two pure functions and a category table; no I/O, no model, no state.

    Attributes:
        name: What it is called.
        sides: The sides its models can judge.
        categories: All they can report.
    """

    name: str
    sides: frozenset[Side] = frozenset(SIDES)
    categories: frozenset[Category]

    @abstractmethod
    def render(self, conversation: Conversation, side: Side) -> Sequence[Question]:
        """Put the `side` part of a conversation, with what led to it, into the model's form.

        Several questions are asked where a model judges one hazard at a time.
        """

    @abstractmethod
    def read(self, answers: Sequence[Answer], side: Side) -> Verdict:
        """Read the answers to the questions of `render`, in their order.

        Raises:
            GuardOutputError: They cannot be read.
        """


class LanguageFamily(Family[Prompt, Completion]):
    """A family of language models."""


class ClassifierFamily(Family[TextInput, TextScores]):
    """A family of text classifiers."""
