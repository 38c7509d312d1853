"""What there is to know about a guard model before it is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from langchain_safeguard.guards.family import Family
from langchain_safeguard.taxonomy import SIDES, Category, Side

Quantization = Literal["4bit", "8bit"]


@dataclass(frozen=True, slots=True)
class GuardCard:
    """One guard model.

    Attributes:
        name: What `load_guard` calls it: a hub id.
        family: Makes its family from options; a family of language models also takes `template`,
            the checkpoint's own chat template.
        languages: The languages it was made for.
        sides: The sides it can judge.
        licence: The licence of its weights.
        gated: Whether its owner asks for an agreement before the download.
        size: The size of its model, in parameters.
        note: What else matters when choosing.
        signs: Texts that all stand in the chat template of its kind and of no other: a folder of
            any name is recognised by them.
        labels: For classifiers: labels of its config by which a folder of any name is recognised.
        options: Options with which `family` is called.
        quantization: How its card loads it.
        base_model: For an adapter: the hub id of the model it adapts. For a classifier: the model
            whose tokenizer it reads with, if its checkpoint has none.
        classifier: Whether it is a sequence classifier rather than a language model.
    """

    name: str
    family: Callable[..., Family[Any, Any]]
    languages: tuple[str, ...]
    licence: str
    size: str
    sides: tuple[Side, ...] = SIDES
    gated: bool = False
    note: str = ""
    signs: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    quantization: Quantization | None = None
    base_model: str | None = None
    classifier: bool = False

    @property
    def categories(self) -> frozenset[Category]:
        """Return all that it can report, as its family has it by default."""
        return self.family(**self.options).categories
