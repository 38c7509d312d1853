"""The two text encoders of the embedded guard, as plain `torch` modules.

`WordEncoder` is a BERT-shaped transformer (the shape of all-MiniLM-L6-v2): English, precise,
the dearer of the two. `PhraseEncoder` has the shape of Google's multilingual Universal Sentence
Encoder (version 3, the convolutional one): n-gram convolutions over SentencePiece pieces, sixteen
languages, about a sixth of the cost. Both are written out here, instead of taken from a model
library, because a guard that loads in a second and answers in milliseconds is worth 200 lines.

Shapes: `B` texts, `T` tokens, `H` width of an encoder, `L` labels.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

PHRASE_ORDERS = (2, 3, 5)
"""Lengths, in pieces, of the n-grams that the phrase encoder convolves over."""


class WordLayer(nn.Module):
    """One post-norm transformer layer with fused query, key and value projections."""

    def __init__(self, width: int, inner: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm1 = nn.LayerNorm(width, eps=1e-12)
        self.up = nn.Linear(width, inner)
        self.down = nn.Linear(inner, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
        """Map `x` (B, T, H) to the same shape; `mask` (B, 1, 1, T) is true where to attend."""
        batch, length, width = x.shape
        rate = dropout if self.training else 0.0
        qkv = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        mixed = self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        x = self.norm1(x + functional.dropout(mixed, rate))
        inner = self.down(functional.gelu(self.up(x)))
        return cast(Tensor, self.norm2(x + functional.dropout(inner, rate)))


class WordEncoder(nn.Module):
    """A small BERT: token, position and segment embeddings, then post-norm layers.

    Args:
        vocabulary: Number of WordPiece tokens.
        width: Size of a hidden state.
        layers: Number of transformer layers.
        heads: Attention heads per layer.
        positions: Longest input in tokens.
    """

    def __init__(
        self,
        vocabulary: int = 30522,
        width: int = 384,
        layers: int = 6,
        heads: int = 12,
        positions: int = 512,
    ) -> None:
        super().__init__()
        self.positions = positions
        # The widths are kept: inference swaps the tables for packed ones.
        self.width = width
        self.words: nn.Module = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(positions, width)
        self.segments = nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.layers = nn.ModuleList(WordLayer(width, 4 * width, heads) for _ in range(layers))
        self.dropout = 0.1

    def forward(self, ids: Tensor, segments: Tensor, mask: Tensor) -> Tensor:
        """Encode token ids (B, T) into states (B, T, H); `mask` (B, T) is true on real tokens."""
        x = self.words(ids) + self.segments(segments) + self.places.weight[: ids.shape[1]]
        x = self.norm(x)
        # A batch without padding needs no mask, and the unmasked attention kernel is faster.
        attend = None if bool(mask.all()) else mask[:, None, None, :]
        for layer in self.layers:
            x = layer(x, attend, self.dropout)
        return cast(Tensor, x)


class GramBranch(nn.Module):
    """Two residual convolutions over n-grams of one length."""

    def __init__(self, order: int, width: int) -> None:
        super().__init__()
        # Upstream looks back floor((n - 1) / 2) pieces and ahead for the rest.
        self.pad = ((order - 1) // 2, order - 1 - (order - 1) // 2)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.first = nn.Conv1d(width, width, order)
        self.second = nn.Conv1d(width, width, order)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map `x` (B, T, H) to the same shape; `mask` (B, T, 1) is 1 on real tokens, else 0."""
        x = self.norm(x)
        for convolution in (self.first, self.second):
            # Padding must look like the zeros that upstream puts beyond a sentence's ends.
            row = functional.pad((x * mask).transpose(1, 2), self.pad)
            x = functional.relu(convolution(row)).transpose(1, 2) + x
        return x


class PhraseEncoder(nn.Module):
    """The convolutional multilingual Universal Sentence Encoder.

    Args:
        vocabulary: Number of SentencePiece pieces kept.
        width: Size of a piece embedding.
        inner: Channels of each n-gram branch.
    """

    def __init__(self, vocabulary: int, width: int = 512, inner: int = 256) -> None:
        super().__init__()
        self.inner = inner
        self.width = width
        self.pieces: nn.Module = nn.Embedding(vocabulary, width)
        self.project = nn.Linear(width, inner * len(PHRASE_ORDERS))
        self.branches = nn.ModuleList(GramBranch(order, inner) for order in PHRASE_ORDERS)
        self.features = width + inner * len(PHRASE_ORDERS)
        self.norm = nn.LayerNorm(self.features, eps=1e-12)
        self.pool = nn.Linear(self.features, width)
        self.hidden0 = nn.Linear(width, 320, bias=False)
        self.skip0 = nn.Linear(width, 320, bias=False)
        self.hidden1 = nn.Linear(320, 320, bias=False)
        self.hidden2 = nn.Linear(320, width, bias=False)
        self.skip2 = nn.Linear(320, width, bias=False)
        self.hidden3 = nn.Linear(width, width, bias=False)

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encode piece ids (B, T), `mask` (B, T) true on real ones.

        Returns:
            Features of every piece (B, T, F), and sentence vectors (B, width) of length one.
        """
        keep = mask.unsqueeze(-1).to(self.norm.weight.dtype)
        pieces = self.pieces(ids)
        projected = self.project(pieces).split(self.inner, dim=-1)
        grams = [branch(x, keep) for branch, x in zip(self.branches, projected, strict=True)]
        features = self.norm(torch.cat([pieces, *grams], dim=-1)) * keep
        return features, self._sentence(features, keep)

    def _sentence(self, features: Tensor, keep: Tensor) -> Tensor:
        count = keep.sum(1).clamp(min=1.0)
        mean = (features.sum(1) @ self.pool.weight.T + count * self.pool.bias) / count.sqrt()
        first = functional.relu(self.hidden0(mean))
        hidden = functional.relu(self.skip0(mean) + self.hidden1(first))
        out = self.skip2(hidden) + self.hidden3(functional.relu(self.hidden2(hidden)))
        return functional.normalize(torch.tanh(out), dim=-1)
