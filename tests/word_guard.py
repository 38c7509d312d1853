"""A guard that anyone can predict: it reports a category when a listed word stands in the text."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_safeguard import Category, Conversation, Finding, Guard, Side, Verdict

WORDS = {"bomb": "indiscriminate_weapons", "폭탄": "indiscriminate_weapons", "hate": "hate"}


class WordGuard(Guard):
    """Scores 0.9 for the category of each listed word or phrase in the judged text.

    Args:
        words: From word to category.
        delay: Seconds that each call takes.

    Attributes:
        seen: What was judged: each text with its side, in order.
        batches: The size of each call.
    """

    name = "words"

    def __init__(self, words: Mapping[str, str] = WORDS, *, delay: float = 0.0) -> None:
        self.words = dict(words)
        self.delay = delay
        self.seen: list[tuple[Side, str]] = []
        self.contexts: list[Conversation] = []
        self.batches: list[int] = []
        self._lock = threading.Lock()

    def check(self, conversations: Sequence[Conversation], side: Side) -> list[Verdict]:
        """Judge, after the delay."""
        time.sleep(self.delay)
        with self._lock:
            self.batches.append(len(conversations))
            self.contexts += conversations
            self.seen += [(side, c.checked(side).text) for c in conversations]
        return [self._verdict(c.checked(side).text) for c in conversations]

    def _verdict(self, text: str) -> Verdict:
        found = tuple(
            Finding(Category.of(category), 0.9)
            for word, category in self.words.items()
            if word in text
        )
        return Verdict(self.name, findings=found, score=0.9 if found else 0.01)


class FaultyGuard(Guard):
    """Does something wrong instead of judging, on one side or on both."""

    name = "faulty"

    def __init__(self, fault: Callable[[], Any], side: Side | None = None) -> None:
        self.fault = fault
        self.side = side

    def check(self, conversations: Sequence[Conversation], side: Side) -> list[Verdict]:
        """Misbehave."""
        if self.side in (None, side):
            verdicts: list[Verdict] = self.fault()
            return verdicts
        return [Verdict(self.name, score=0.0) for _ in conversations]
