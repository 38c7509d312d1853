"""Checking a batch of columns: the function for Ray Data, and what `check_file` is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from langchain_safeguard.conversation import Conversation
from langchain_safeguard.decision import Decision
from langchain_safeguard.errors import ConfigurationError, UnreadableInputError
from langchain_safeguard.guards.base import Guard
from langchain_safeguard.policy import Action, Policy
from langchain_safeguard.safeguard import Safeguard
from langchain_safeguard.taxonomy import Side, side_of

ADDED = (
    "safeguard_action",
    "safeguard_score",
    "safeguard_categories",
    "safeguard_rule",
    "safeguard_decision_id",
    "safeguard_failed",
    "safeguard_unchecked",
    "safeguard_text",
)
"""The columns that are added. `safeguard_text` is the new text where one was rewritten."""


class CheckBatch:
    """Adds a decision to each row of a batch; for `Dataset.map_batches` of Ray Data and the like.

    A row without a readable text is not judged: `safeguard_failed` is true, and its action is the
    policy's `on_failure`.

    Args:
        guard: What judges; see `Safeguard`.
        policy: What to do about what it sees; see `Safeguard`.
        side: Who wrote the texts.
        text_column: The column with the texts; a text may also be a list of messages.
        prompt_column: The column with what the texts answer.

    Raises:
        ConfigurationError: A value is wrong; the message names it and what is allowed.

    Example:
        ```python
        checked = dataset.map_batches(
            CheckBatch, fn_constructor_kwargs={"text_column": "question"}, concurrency=4
        )
        ```
    """

    def __init__(
        self,
        guard: str | Path | Guard | Sequence[str | Path | Guard] | None = None,
        policy: Policy | Mapping[str, Any] | str | Path | None = None,
        *,
        side: Side = "input",
        text_column: str = "text",
        prompt_column: str | None = None,
    ) -> None:
        """Check the values and load the guard."""
        self.side = side_of(side)
        if prompt_column is not None and self.side == "input":
            raise ConfigurationError("a prompt column needs a side other than 'input'")
        self.text_column = text_column
        self.prompt_column = prompt_column
        # What comes back is the record.
        self.safeguard = Safeguard(guard, policy, audit=None)
        self.safeguard.require(self.side)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Return the batch, a dict of columns, with the columns of `ADDED`.

        Raises:
            ConfigurationError: It has no such column.
        """
        missing = [name for name in self.columns if name not in batch]
        if missing:
            raise ConfigurationError.unknown("column", missing[0], batch)
        results = self.results(*(batch[name] for name in self.columns))
        added = {name: _array([result[name] for result in results]) for name in ADDED}
        return {**batch, **added}

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns that are read."""
        return (self.text_column, *([self.prompt_column] if self.prompt_column else []))

    def results(
        self, texts: Sequence[Any], prompts: Sequence[Any] | None = None
    ) -> list[dict[str, Any]]:
        """Decide about texts in one pass of each guard.

        Args:
            texts: The texts.
            prompts: What each of them answers.

        Returns:
            A value for each column of `ADDED`, for each text.
        """
        read = [
            self._read(text, None if prompts is None else prompts[at])
            for at, text in enumerate(texts)
        ]
        conversations = [each for each in read if each is not None]
        decisions = iter(self.safeguard.batch(conversations, side=self.side))
        return [self._unread() if each is None else _result(next(decisions)) for each in read]

    def _read(self, text: Any, prompt: Any) -> Conversation | None:
        if isinstance(text, np.ndarray):
            text = text.tolist()
        try:
            turns = Conversation.of(text, self.side).turns
            if prompt is not None:
                turns = (*Conversation.of(prompt).turns, *turns)
            conversation = Conversation(turns)
            conversation.checked(self.side)
        except UnreadableInputError:
            return None
        return conversation

    def _unread(self) -> dict[str, Any]:
        blank = dict.fromkeys(ADDED)
        return blank | {
            "safeguard_action": self.safeguard.policy.on_failure.value,
            "safeguard_rule": "on_failure",
            "safeguard_failed": True,
            "safeguard_categories": [],
            "safeguard_unchecked": [],
        }


def _result(decision: Decision) -> dict[str, Any]:
    summary = decision.summary()
    facts = {name: summary.get(name.removeprefix("safeguard_")) for name in ADDED}
    facts["safeguard_text"] = decision.text if decision.action is Action.REWRITE else None
    return facts


def _array(values: list[Any]) -> Any:
    """Make a column; lists stay lists, whatever their lengths."""
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column
