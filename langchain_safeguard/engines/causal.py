"""Runs a causal language model: reads probabilities from one pass, writes only where asked to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch

from langchain_safeguard.engines.answers import Fork, Stage, plan
from langchain_safeguard.engines.base import (
    Completion,
    Engine,
    Prompt,
    Reading,
    Writing,
)
from langchain_safeguard.engines.next_token import Context, NextToken
from langchain_safeguard.engines.tokens import PromptTokenizer
from langchain_safeguard.engines.tree_next_token import TreeNextToken
from langchain_safeguard.errors import GuardOutputError

_SPELLED_OUT = 64
"""How many tokens of the end of what was written are searched for `Writing.until`."""


@dataclass
class _Row:
    """One prompt on its way: what was read and written so far."""

    prompt: Prompt
    ids: list[int]
    asked: int
    left: list[str | Reading | Writing]
    before: str
    readings: dict[str, dict[str, float]] = field(default_factory=dict)
    said: str = ""
    wrote: bool = False

    def completion(self) -> Completion:
        return Completion(self.readings, self.said if self.wrote else None, self.asked)


class CausalEngine(Engine[Prompt, Completion]):
    """An engine around a causal language model.

    Args:
        next_token: Gives the logits of what comes next.
        tokenizer: The model's tokenizer.
        limit: The most tokens a prompt may have.
        name: What its worker thread is called.
        batch: The most prompts in one batch. A GPU gains from many; on a CPU nobody should wait
            for the end of a long one.
    """

    def __init__(
        self,
        next_token: NextToken,
        tokenizer: PromptTokenizer,
        *,
        limit: int,
        name: str,
        batch: int = 8,
    ) -> None:
        """Store."""
        super().__init__()
        self.name = name
        self.limit = limit
        self.batch = batch
        self.next_token = next_token
        self._tokenizer = tokenizer
        self._plan = lru_cache(maxsize=256)(self._planned)

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
        self._stage(self._begin(question))

    def counts(self) -> dict[str, int]:
        """Return how many tokens it was asked, and how many it had to compute for that."""
        tree = self.next_token
        if not isinstance(tree, TreeNextToken):
            return {}
        return {"tokens": tree.asked, "computed_tokens": tree.computed}

    def run(self, questions: Sequence[Prompt]) -> list[Completion]:
        """Answer all prompts: one pass, and one more for each token that has to be written."""
        rows = [self._begin(prompt) for prompt in questions]
        while open_ := [row for row in rows if row.left]:
            self._read(open_)
            self._write([row for row in open_ if row.left])
        return [row.completion() for row in rows]

    def _begin(self, prompt: Prompt) -> _Row:
        ids = self._tokenizer.encode(prompt.pieces)
        before = prompt.pieces[-1].text
        return _Row(prompt, ids, len(ids), [*prompt.answer], before)

    def _stage(self, row: _Row) -> Stage:
        parts: list[str | Reading] = []
        for part in row.left:
            if isinstance(part, Writing):
                break
            parts.append(part)
        return self._plan(row.before, tuple(parts))

    def _planned(self, before: str, parts: tuple[str | Reading, ...]) -> Stage:
        return plan(self._tokenizer, before, parts)

    def _read(self, rows: Sequence[_Row]) -> None:
        """Take all rows up to their next writing, or to their end."""
        stages = [self._stage(row) for row in rows]
        asked: list[tuple[_Row, Fork]] = []
        contexts = []
        for row, stage in zip(rows, stages, strict=True):
            # The last token of a prompt is computed anew each time: its logits are the verdict.
            keep = len(row.ids) - 1
            for _, fork in stage.readings:
                for part in fork.all():
                    asked.append((row, part))
                    contexts.append(Context([*row.ids, *part.path], part.choices, keep))
        logits = self.next_token.logits(contexts) if contexts else []
        by_row: dict[int, dict[Fork, list[float]]] = {}
        for (row, part), found in zip(asked, logits, strict=True):
            by_row.setdefault(id(row), {})[part] = _finite(found.double().softmax(0)).tolist()
        for row, stage in zip(rows, stages, strict=True):
            _take(row, stage, by_row.get(id(row), {}))

    def _write(self, rows: Sequence[_Row]) -> None:
        """Let the model write; all rows together, one token each per pass."""
        written: dict[int, list[int]] = {}
        open_ = []
        for row in rows:
            writing = row.left.pop(0)
            assert isinstance(writing, Writing)
            if _wanted(writing, row.readings):
                written[id(row)] = []
                row.wrote = True
                open_.append((row, writing))
            else:
                row.left = []
        while open_:
            contexts = [
                Context([*row.ids, *written[id(row)]], None, len(row.ids) + len(written[id(row)]))
                for row, _ in open_
            ]
            going = []
            for (row, writing), logits in zip(open_, self.next_token.logits(contexts), strict=True):
                likeliest = logits.argmax()
                _finite(logits[likeliest])
                if self._goes_on(row, writing, written[id(row)], int(likeliest)):
                    going.append((row, writing))
                else:
                    self._end(row, writing, written[id(row)])
            open_ = going

    def _goes_on(self, row: _Row, writing: Writing, ids: list[int], token: int) -> bool:
        if token in self._tokenizer.eos:
            return False
        ids.append(token)
        if writing.until and writing.until in self._tokenizer.decode(ids[-_SPELLED_OUT:]):
            return False
        return len(ids) < writing.limit

    def _end(self, row: _Row, writing: Writing, ids: list[int]) -> None:
        text = self._tokenizer.decode(ids)
        row.ids += ids
        row.said += text
        row.before = "\n"
        if writing.until is None:
            return
        if writing.until in text:
            row.before = writing.until
        else:
            # The reading that follows stands where it would in a complete answer.
            row.left.insert(0, writing.until)


def _take(row: _Row, stage: Stage, probabilities: Mapping[Fork, Sequence[float]]) -> None:
    for name, fork in stage.readings:
        row.readings[name] = fork.probabilities(probabilities)
    while row.left and not isinstance(row.left[0], Writing):
        row.left.pop(0)
    row.ids = [*row.ids, *stage.forced]
    row.said += stage.text
    row.before += stage.text


def _finite(numbers: torch.Tensor) -> torch.Tensor:
    """Return numbers if they are finite: any other is neither above nor below a threshold."""
    if not bool(numbers.isfinite().all()):
        raise GuardOutputError("the model gave a number that is not finite")
    return numbers


def _wanted(writing: Writing, readings: Mapping[str, Mapping[str, float]]) -> bool:
    if writing.only_if is None:
        return True
    name, label = writing.only_if
    found = readings[name]
    return max(found, key=lambda each: found[each]) == label
