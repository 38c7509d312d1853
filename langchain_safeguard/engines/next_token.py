"""What comes next: the seam between reading prompts and running a transformer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch


@dataclass(frozen=True, slots=True)
class Context:
    """A text whose next token is asked for.

    Attributes:
        ids: Its tokens.
        choices: The tokens whose logits are wanted; `None` means the whole vocabulary.
        keep: How many of `ids`, from the first, are worth remembering for later questions.
    """

    ids: Sequence[int]
    choices: Sequence[int] | None
    keep: int = 0


class NextToken(Protocol):
    """Gives the logits of the token that comes next."""

    def logits(self, contexts: Sequence[Context]) -> list[torch.Tensor]:
        """Return per context the logits of its choices, in their order, in float32 on the CPU."""
        ...


class PlainNextToken:
    """Reads each context from its first token, exactly as the model's own code does.

    It serves models whose attention cannot be taken apart, and as the reference for
    `TreeNextToken`.
    """

    def __init__(self, model: Any) -> None:
        """Store the model."""
        self._model = model

    @torch.inference_mode()
    def logits(self, contexts: Sequence[Context]) -> list[torch.Tensor]:
        """Return the logits of each context, computed alone or on the way of a longer one."""
        found: dict[int, torch.Tensor] = {}
        device = self._model.get_input_embeddings().weight.device
        for whole, places in _chains([list(context.ids) for context in contexts]):
            last = [len(contexts[place].ids) - 1 for place in places]
            rows = self._model(
                input_ids=torch.tensor([whole], device=device),
                use_cache=False,
                logits_to_keep=torch.tensor(last, device=device),
            ).logits[0]
            for place, row in zip(places, rows, strict=True):
                choices = contexts[place].choices
                found[place] = (row if choices is None else row[list(choices)]).float().cpu()
        return [found[place] for place in range(len(contexts))]


def _chains(texts: Sequence[list[int]]) -> list[tuple[list[int], list[int]]]:
    """Return the texts that begin no other one, each with the places of those that begin it."""
    chains: list[tuple[list[int], list[int]]] = []
    for place in sorted(range(len(texts)), key=texts.__getitem__, reverse=True):
        text = texts[place]
        if chains and chains[-1][0][: len(text)] == text:
            chains[-1][1].append(place)
        else:
            chains.append((text, [place]))
    return chains
