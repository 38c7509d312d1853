"""Encoders with their classification heads: one logit per name in `labels.OUTPUTS`.

Both read an answer in the context of its prompt: the word branch as a pair in one sequence, the
phrase branch as two sequences whose pooled features meet in the head.

Shapes: `B` texts, `T` tokens, `L` labels.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from langchain_safeguard.embedded.encoders import PhraseEncoder, WordEncoder
from langchain_safeguard.embedded.labels import OUTPUTS

_MINUS = -1e4
"""Stands in for minus infinity where padding must lose a maximum, and stays finite."""


class WordBranch(nn.Module):
    """Transformer branch. Pools the first state, and mean and maximum over the judged text."""

    def __init__(self, encoder: WordEncoder, hidden: int = 384, labels: int = len(OUTPUTS)) -> None:
        super().__init__()
        self.encoder = encoder
        width = encoder.width
        self.hidden = nn.Linear(3 * width, hidden)
        self.dropout = nn.Dropout(0.1)
        self.out = nn.Linear(hidden, labels)

    def forward(self, ids: Tensor, segments: Tensor, mask: Tensor, judged: Tensor) -> Tensor:
        """Logits (B, L) for ids (B, T); `judged` (B, T) is true on the tokens of the text."""
        pooled = self.pooled(ids, segments, mask, judged)
        return cast(Tensor, self.out(self.dropout(functional.gelu(self.hidden(pooled)))))

    def pooled(self, ids: Tensor, segments: Tensor, mask: Tensor, judged: Tensor) -> Tensor:
        """Features (B, 3 * width) of the same texts, which the head reads."""
        states = self.encoder(ids, segments, mask)
        keep = judged.unsqueeze(-1)
        mean = (states * keep).sum(1) / keep.sum(1).clamp(min=1)
        top = states.masked_fill(~keep, _MINUS).amax(1)
        return torch.cat([states[:, 0], mean, top], dim=-1)


class PhraseBranch(nn.Module):
    """Convolutional branch. Pools piece features of text and prompt, then a small perceptron."""

    def __init__(
        self,
        encoder: PhraseEncoder,
        pooled: int = 256,
        hidden: int = 320,
        labels: int = len(OUTPUTS),
    ) -> None:
        super().__init__()
        self.encoder = encoder
        sentence = encoder.width
        self.reduce = nn.Linear(encoder.features, pooled)
        self.focus = nn.Linear(pooled, 4)
        self.hidden = nn.Linear(2 * (sentence + 6 * pooled) + 1, hidden)
        self.dropout = nn.Dropout(0.2)
        self.out = nn.Linear(hidden, labels)

    def forward(
        self, ids: Tensor, mask: Tensor, prompt_ids: Tensor | None, prompt_mask: Tensor | None
    ) -> Tensor:
        """Logits (B, L) for pieces (B, T); the prompt's may be None when no text has one."""
        text = self._pooled(ids, mask)
        if prompt_ids is None or prompt_mask is None:
            prompt = torch.zeros_like(text)
            answers = text.new_zeros(len(text), 1)
        else:
            answers = prompt_mask.any(1, keepdim=True).to(text.dtype)
            prompt = self._pooled(prompt_ids, prompt_mask) * answers
        joined = self.dropout(torch.cat([text, prompt, answers], dim=-1))
        return cast(Tensor, self.out(self.dropout(functional.gelu(self.hidden(joined)))))

    def _pooled(self, ids: Tensor, mask: Tensor) -> Tensor:
        features, sentence = self.encoder(ids, mask)
        keep = mask.unsqueeze(-1)
        states = functional.gelu(self.reduce(features))
        mean = (states * keep).sum(1) / keep.sum(1).clamp(min=1)
        top = states.masked_fill(~keep, _MINUS).amax(1).clamp(min=_MINUS / 2)
        weights = self.focus(states).masked_fill(~keep, _MINUS).softmax(1)
        attended = torch.einsum("btk,btf->bkf", weights, states).flatten(1)
        # Unit length suits retrieval; the head wants features of ordinary size.
        return torch.cat([sentence * sentence.shape[-1] ** 0.5, mean, top, attended], dim=-1)
