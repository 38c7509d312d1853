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
        """Return the logits of each context, computed alone."""
        found = []
        device = self._model.get_input_embeddings().weight.device
        for context in contexts:
            ids = torch.tensor([list(context.ids)], device=device)
            row = self._model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[0, -1]
            row = row if context.choices is None else row[list(context.choices)]
            found.append(row.float().cpu())
        return found
