"""How a forced answer is gone through, whatever runs the model: in stages, up to each writing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial

from langchain_safeguard.engines.answers import Stage, plan
from langchain_safeguard.engines.base import Completion, Engine, Prompt, Reading, Writing
from langchain_safeguard.engines.tokens import PromptTokenizer

POSITIONS = 4096
"""The most tokens read at once, unless asked for more: guards are trained on less."""
ROOM = 64
"""Positions left for the answer."""
_SPELLED_OUT = 64
"""How many tokens of the end of what was written are searched for `Writing.until`."""


@dataclass
class Progress:
    """One prompt on its way.

    Attributes:
        ids: The prompt, and what was forced and written behind it so far.
        asked: How many tokens the prompt has.
        left: What of the answer is still to come.
        before: The trusted text in front of that.
        readings: What was read.
        said: What was forced and written, as a text.
        wrote: Whether the model wrote something itself.
    """

    ids: list[int]
    asked: int
    left: list[str | Reading | Writing]
    before: str
    readings: dict[str, Mapping[str, float]] = field(default_factory=dict)
    said: str = ""
    wrote: bool = False

    def completion(self) -> Completion:
        """Return the answer."""
        return Completion(self.readings, self.said if self.wrote else None, self.asked)


class Answering:
    """Goes through the answers of prompts.

    Args:
        tokenizer: The model's tokenizer.
    """

    def __init__(self, tokenizer: PromptTokenizer) -> None:
        """Store."""
        self.tokenizer = tokenizer
        self._plan = lru_cache(maxsize=256)(partial(plan, tokenizer))

    def begin(self, prompt: Prompt) -> Progress:
        """Encode a prompt; nothing is read yet."""
        ids = self.tokenizer.encode(prompt.pieces)
        return Progress(ids, len(ids), [*prompt.answer], prompt.pieces[-1].text)

    def stage(self, progress: Progress) -> Stage:
        """Return what is to be read and forced up to the next writing, or to the end.

        Raises:
            GuardLoadError: The vocabulary has no tokens for it.
        """
        parts: list[str | Reading] = []
        for part in progress.left:
            if isinstance(part, Writing):
                break
            parts.append(part)
        return self._plan(progress.before, tuple(parts))

    @staticmethod
    def take(
        progress: Progress, stage: Stage, readings: Mapping[str, Mapping[str, float]]
    ) -> Writing | None:
        """Note a stage as done.

        Args:
            progress: The prompt.
            stage: Its stage.
            readings: Per reading a probability per label.

        Returns:
            What the model writes next; `None` if the answer ends here.
        """
        progress.readings |= readings
        while progress.left and not isinstance(progress.left[0], Writing):
            progress.left.pop(0)
        progress.ids = [*progress.ids, *stage.forced]
        progress.said += stage.text
        progress.before += stage.text
        if not progress.left:
            return None
        writing = progress.left.pop(0)
        assert isinstance(writing, Writing)
        if not _wanted(writing, progress.readings):
            progress.left = []
            return None
        progress.wrote = True
        return writing

    def goes_on(self, writing: Writing, ids: list[int], token: int) -> bool:
        """Add a token to what was written, unless it ends the answer; tell if more may come."""
        if token in self.tokenizer.eos:
            return False
        ids.append(token)
        if writing.until and writing.until in self.tokenizer.decode(ids[-_SPELLED_OUT:]):
            return False
        return len(ids) < writing.limit

    def end(self, progress: Progress, writing: Writing, ids: Sequence[int]) -> None:
        """Note a writing as done."""
        text = self.tokenizer.decode(ids)
        progress.ids += ids
        progress.said += text
        progress.before = "\n"
        if writing.until is None:
            return
        if writing.until in text:
            progress.before = writing.until
        else:
            # The reading that follows stands where it would in a complete answer.
            progress.left.insert(0, writing.until)


def _wanted(writing: Writing, readings: Mapping[str, Mapping[str, float]]) -> bool:
    if writing.only_if is None:
        return True
    name, label = writing.only_if
    found = readings[name]
    return max(found, key=lambda each: found[each]) == label


class PromptEngine(Engine[Prompt, Completion]):
    """What engines for prompts have in common, wherever their model runs: they tokenise here.

    Args:
        tokenizer: The model's tokenizer.
        limit: The most tokens a prompt may have.
        name: What its thread is called.
    """

    def __init__(self, tokenizer: PromptTokenizer, *, limit: int, name: str) -> None:
        """Store."""
        super().__init__()
        self.name = name
        self.limit = limit
        self._tokenizer = tokenizer
        self._answering = Answering(tokenizer)

    def measure(self, question: Prompt) -> int:
        """Return how many tokens a prompt has."""
        return len(self._tokenizer.encode(question.pieces))

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Return the characters of each token of a text."""
        return self._tokenizer.offsets(text)

    def require(self, question: Prompt) -> None:
        """Make sure that the model can give the answer of a prompt.

        Raises:
            GuardLoadError: Its vocabulary has no tokens for it.
        """
        self._answering.stage(self._answering.begin(question))
