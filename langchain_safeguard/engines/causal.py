"""Runs a causal language model: reads probabilities from one pass, writes only where asked to."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from langchain_safeguard.engines.answering import Progress, PromptEngine
from langchain_safeguard.engines.answers import Fork
from langchain_safeguard.engines.base import Completion, Prompt, Writing
from langchain_safeguard.engines.next_token import Context, NextToken
from langchain_safeguard.engines.tokens import PromptTokenizer
from langchain_safeguard.engines.tree_next_token import TreeNextToken
from langchain_safeguard.errors import GuardOutputError


class CausalEngine(PromptEngine):
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
        super().__init__(tokenizer, limit=limit, name=name)
        self.batch = batch
        self.next_token = next_token

    def counts(self) -> dict[str, int]:
        """Return how many tokens it was asked, and how many it had to compute for that."""
        tree = self.next_token
        if not isinstance(tree, TreeNextToken):
            return {}
        return {"tokens": tree.asked, "computed_tokens": tree.computed}

    def run(self, questions: Sequence[Prompt]) -> list[Completion]:
        """Answer all prompts: one pass, and one more for each token that has to be written."""
        rows = [self._answering.begin(prompt) for prompt in questions]
        while open_ := [row for row in rows if row.left]:
            self._write(self._read(open_))
        return [row.completion() for row in rows]

    def _read(self, rows: Sequence[Progress]) -> list[tuple[Progress, Writing]]:
        """Take all rows up to their next writing, or to their end; return what is to be written."""
        stages = [self._answering.stage(row) for row in rows]
        asked: list[tuple[Progress, Fork]] = []
        contexts = []
        for row, stage in zip(rows, stages, strict=True):
            # The last token of a prompt is computed anew each time: its logits are the verdict.
            keep = len(row.ids) - 1
            for part in stage.forks:
                asked.append((row, part))
                contexts.append(Context([*row.ids, *part.path], part.choices, keep))
        logits = self.next_token.logits(contexts) if contexts else []
        by_row: dict[int, dict[Fork, list[float]]] = {}
        for (row, part), found in zip(asked, logits, strict=True):
            by_row.setdefault(id(row), {})[part] = _finite(found.double().softmax(0)).tolist()
        writings = []
        for row, stage in zip(rows, stages, strict=True):
            found_at = by_row.get(id(row), {})
            readings = {name: fork.probabilities(found_at) for name, fork in stage.readings}
            if (writing := self._answering.take(row, stage, readings)) is not None:
                writings.append((row, writing))
        return writings

    def _write(self, open_: Sequence[tuple[Progress, Writing]]) -> None:
        """Let the model write; all rows together, one token each per pass."""
        written: dict[int, list[int]] = {id(row): [] for row, _ in open_}
        while open_:
            contexts = [
                Context([*row.ids, *written[id(row)]], None, len(row.ids) + len(written[id(row)]))
                for row, _ in open_
            ]
            going = []
            for (row, writing), logits in zip(open_, self.next_token.logits(contexts), strict=True):
                likeliest = logits.argmax()
                _finite(logits[likeliest])
                if self._answering.goes_on(writing, written[id(row)], int(likeliest)):
                    going.append((row, writing))
                else:
                    self._answering.end(row, writing, written[id(row)])
            open_ = going


def _finite(numbers: torch.Tensor) -> torch.Tensor:
    """Return numbers if they are finite: any other is neither above nor below a threshold."""
    if not bool(numbers.isfinite().all()):
        raise GuardOutputError("the model gave a number that is not finite")
    return numbers
