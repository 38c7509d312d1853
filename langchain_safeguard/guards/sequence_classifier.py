"""Guards that are sequence classifiers: a text in, a probability per label out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from langchain_safeguard.conversation import Conversation
from langchain_safeguard.engines import TextInput, TextScores
from langchain_safeguard.errors import ConfigurationError, GuardOutputError
from langchain_safeguard.guards.evidence import judged_each
from langchain_safeguard.guards.family import ClassifierFamily
from langchain_safeguard.guards.label_map import LabelMap, Meaning
from langchain_safeguard.guards.options import flag
from langchain_safeguard.guards.yaml_file import from_file, from_mapping
from langchain_safeguard.taxonomy import SIDES, Category, Side
from langchain_safeguard.verdict import Span, Verdict

_ACTIVATIONS = ("softmax", "sigmoid")


class SequenceClassifier(ClassifierFamily):
    """Judges the checked text by itself, whoever said it.

    Where labels exclude each other, the risk of a text is what is not harmless: all hazards
    together. Otherwise it is that of the likeliest hazard. A long text is as risky as its riskiest
    window.

    Example:
        ```python
        SequenceClassifier({"toxic": "harassment", "obscene": "profanity"}, benign="neutral")
        ```

    Args:
        labels: From label to category, or several, or `None` for a label that is harmless. Case and
            `_`, `-` or blanks between words do not matter.
        benign: More labels that are harmless.
        by_side: What differs on a side: from side to labels and what they stand for there.
        sides: The sides to judge.
        activation: `"softmax"` where labels exclude each other, `"sigmoid"` where several can hold;
            the model's config decides if left out.
        order: The names of the model's outputs in their order, for a model whose config has none
            but `LABEL_0` and so on.
        strict: Whether `check_labels` takes a label that the model lacks for an error.
        name: What the family is called.

    Attributes:
        activation: As given.
        labels: The names of the outputs, where the config has none; `order`.

    Raises:
        ConfigurationError: Something is unknown; the message says what is allowed.
    """

    def __init__(
        self,
        labels: Mapping[str, Meaning],
        *,
        benign: Collection[str] | str = (),
        by_side: Mapping[str, Mapping[str, Meaning]] | None = None,
        sides: Collection[str] | str = SIDES,
        activation: str | None = None,
        order: Sequence[str] | None = None,
        strict: bool = True,
        name: str = "sequence-classifier",
    ) -> None:
        """Check and store."""
        if activation is not None and activation not in _ACTIVATIONS:
            raise ConfigurationError.unknown("activation", activation, _ACTIVATIONS)
        if order is not None and not (
            isinstance(order, list | tuple) and all(isinstance(label, str) for label in order)
        ):
            raise ConfigurationError(f"order={order!r}; allowed: a list of labels")
        self._map = LabelMap(labels, benign=benign, by_side=by_side, sides=sides)
        self._strict = flag("strict", strict)
        self.name = name
        self.sides = self._map.sides
        self.categories = self._map.categories
        self.activation = activation
        self.labels = None if order is None else tuple(order)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SequenceClassifier:
        """Read what a YAML file holds: the arguments by their names.

        Raises:
            ConfigurationError: A key or value is unknown; the message says what is allowed.
        """
        return from_mapping(cls, "classifier", data)

    @classmethod
    def from_file(cls, path: str | Path) -> SequenceClassifier:
        """Read a YAML file with the arguments by their names.

        Raises:
            ConfigurationError: It is missing or wrong; the message names it and what is allowed.
        """
        return from_file(cls.from_dict, path)

    def check_labels(self, labels: Sequence[str], *, exclusive: bool) -> None:
        """Make sure that the answers of a model with these labels can be read.

        Args:
            labels: The model's.
            exclusive: Whether they exclude each other.

        Raises:
            ConfigurationError: They cannot; the message says why.
        """
        has = f"the model has {', '.join(map(repr, labels))}"
        missing = self._map.missing(labels)
        if self._strict and missing:
            raise ConfigurationError(f"no label {', '.join(map(repr, missing))}; {has}")
        for side in sorted(self.sides):
            counted = [label for label in labels if self._map.meaning(label, side)]
            if not counted:
                raise ConfigurationError(f"no label of the model is a hazard on {side!r}; {has}")
            if exclusive and len(counted) == len(labels):
                raise ConfigurationError(
                    "the model's labels exclude each other and none is harmless: every text would "
                    f"be a hazard; name one in benign=; {has}"
                )

    def render(self, conversation: Conversation, side: Side) -> Sequence[TextInput]:
        """Hand over the checked text, without a preamble."""
        return [TextInput(conversation.checked(side).body, side=side)]

    def read(self, answers: Sequence[TextScores], side: Side) -> Verdict:
        """Read the hazards; each has the risk of the window in which it is riskiest."""
        [answer] = answers
        table = {label: self._map.meaning(label, side) for label in answer.scores}
        parts = [stretch.scores for stretch in answer.stretches] or [answer.scores]
        risks = [_risks(scores, table, answer.exclusive) for scores in parts]
        spans = [
            Span(stretch.start, stretch.end, max(found.values()))
            for stretch, found in zip(answer.stretches, risks, strict=False)
        ]
        highest = {label: max(found[label] for found in risks) for label in risks[0]}
        verdict = judged_each(self.name, highest, table=table, tokens=answer.tokens)
        return verdict if not spans else replace(verdict, spans=tuple(spans))


def _risks(
    scores: Mapping[str, float], table: Mapping[str, tuple[Category, ...]], exclusive: bool
) -> dict[str, float]:
    """Return the risk of each hazard; the likeliest stands for all where they exclude each other.

    Raises:
        GuardOutputError: The scores are no probabilities, or say nothing of a hazard.
    """
    if not all(0.0 <= score <= 1.0 for score in scores.values()):
        raise GuardOutputError("the classifier gave a number that is no probability")
    risks = {label: score for label, score in scores.items() if table[label]}
    if not risks:
        raise GuardOutputError("none of the classifier's labels is a hazard here")
    if exclusive:
        if len(risks) == len(scores):
            raise GuardOutputError("none of the classifier's labels is harmless")
        # Two hazards that share the probability make the text no safer.
        risks[max(risks, key=lambda label: risks[label])] = min(sum(risks.values()), 1.0)
    return risks
