"""Attention over a token tree: each run of tokens looks at itself and at what led to it.

Registered with transformers as an attention implementation, so that a model's own code computes
everything else. Several runs stand in one row without padding, and none sees another that is not
on its own path.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface

from langchain_safeguard.engines.products import product
from langchain_safeguard.engines.token_tree import Node
from langchain_safeguard.engines.tree_layout import Layout, Sight

NAME = "langchain_safeguard_tree"

_ROWS = 128
"""The most tokens scored at once on a CPU: their scores stay in its cache."""

_now = threading.local()


@contextmanager
def packed(nodes: Sequence[Node]) -> Iterator[None]:
    """Compute attention in this thread over nodes that stand in one row.

    Args:
        nodes: Nodes that are not computed, parents first. Afterwards they hold keys and values;
            after an error they do not.
    """
    _now.layout = Layout(nodes)
    try:
        yield
    except BaseException:
        for node in nodes:
            node.keys, node.values = [], []
        raise
    finally:
        _now.layout = None


@dataclass(frozen=True)
class _Weighing:
    """How scores become weights.

    Attributes:
        scaling: The factor of the scores.
        softcap: Soft limit of the scores (Gemma 2).
        sinks: Per head the logit of a sink that takes weight and gives nothing (gpt-oss).
    """

    scaling: float
    softcap: float | None
    sinks: torch.Tensor | None

    def weights(
        self, scores: torch.Tensor, mask: torch.Tensor | None, heads: slice
    ) -> torch.Tensor:
        """Turn scaled scores (heads, tokens, keys) into weights; the scores are used up.

        Args:
            scores: The scores.
            mask: Which of the last keys each token sees (tokens, keys); it sees all others.
            heads: Which heads these are.
        """
        if self.softcap is not None:
            scores = self.softcap * torch.tanh(scores / self.softcap)
        if mask is not None:
            scores[..., -mask.shape[-1] :].masked_fill_(~mask, -torch.inf)
        if self.sinks is None:
            return scores.softmax(-1, dtype=torch.float32)
        sinks = self.sinks[heads].reshape(-1, 1, 1).expand(-1, scores.shape[1], 1)
        return torch.cat([scores, sinks.to(scores)], 2).softmax(-1, dtype=torch.float32)[..., :-1]


def tree_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attend: (1, heads, tokens, size) in, (1, tokens, heads, size) out.

    Args:
        module: The attention layer; its config says whether it attends within chunks.
        query: Of all tokens in the row.
        key: Likewise, with as many heads as there are keys.
        value: Likewise.
        attention_mask: Not used: the tree says who sees whom.
        scaling: The factor of the scores; `None` means one over the root of the size.
        sliding_window: How many of the last positions a token sees, itself included.
        softcap: Soft limit of the scores (Gemma 2).
        s_aux: Per head the logit of a sink that takes weight and gives nothing (gpt-oss).
    """
    layout: Layout = _now.layout
    layer = layout.keep(key[0], value[0])
    sight = Sight(sliding_window, _chunk(module))
    weighing = _Weighing(scaling or query.shape[-1] ** -0.5, softcap, s_aux)
    plain = query.device.type == "cpu" and query.dtype == torch.float32
    attend = _by_products if plain else _by_kernel
    found = query.new_empty(query.shape[2], query.shape[1], value.shape[-1])
    for run in layout.runs:
        rows = slice(run.begin, run.end)
        found[rows] = attend(
            layout,
            run.start,
            query[0, :, rows],
            [*(node.keys[layer] for node in run.before), key[0, :, rows]],
            [*(node.values[layer] for node in run.before), value[0, :, rows]],
            sight,
            weighing,
        )
    return found[None], None


def _chunk(module: torch.nn.Module) -> int | None:
    """Return within how many positions a layer attends (Llama 4)."""
    config: Any = getattr(module, "config", None)
    kinds = getattr(config, "layer_types", None)
    layer = getattr(module, "layer_idx", None)
    if kinds is None or layer is None or kinds[layer] != "chunked_attention":
        return None
    return int(config.attention_chunk_size)


def _by_products(
    layout: Layout,
    start: int,
    query: torch.Tensor,
    keys: list[torch.Tensor],
    values: list[torch.Tensor],
    sight: Sight,
    weighing: _Weighing,
) -> torch.Tensor:
    """Attend in float32 on a CPU: plain products, for all heads that share their keys at once."""
    heads, tokens, size = query.shape
    groups = keys[0].shape[0]
    share = heads // groups
    if share * tokens >= size:
        # Keys joined are fewer numbers than scores joined.
        keys, values = [torch.cat(keys, 1)], [torch.cat(values, 1)]
    found = query.new_empty(tokens, heads, values[0].shape[-1])
    step = math.ceil(tokens / math.ceil(tokens / _ROWS))
    for at in range(0, tokens, step):
        rows = min(step, tokens - at)
        first, end = start + at, start + at + rows
        bounded = sight.first(end - 1) > 0
        near_keys, near_values, begin = keys, values, 0
        if len(keys) == 1:
            begin = max(sight.first(first), 0)
            near_keys, near_values = [keys[0][:, begin:end]], [values[0][:, begin:end]]
        # Unless sight is bounded, only the tokens themselves are hidden from each other.
        mask = layout.mask(first, rows, begin if bounded else first, sight, query.device)
        asked = query[:, at : at + rows] * weighing.scaling
        for group in range(groups):
            mine = slice(group * share, (group + 1) * share)
            rows_of_group = asked[mine].reshape(share * rows, size)
            scores = _joined([product(rows_of_group, each[group]) for each in near_keys])
            weights = weighing.weights(scores.view(share, rows, -1), mask, mine)
            seen = _weighted(weights.reshape(share * rows, -1), near_values, group)
            found[at : at + rows, mine] = seen.view(share, rows, -1).transpose(0, 1)
    return found


def _joined(parts: list[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _weighted(weights: torch.Tensor, values: list[torch.Tensor], group: int) -> torch.Tensor:
    """Return the sum of values by weights (tokens, keys), where the values lie in parts."""
    parts = weights.split_with_sizes([each.shape[1] for each in values], 1)
    seen = [product(part, each[group].t()) for part, each in zip(parts, values, strict=True)]
    return seen[0] if len(seen) == 1 else torch.stack(seen).sum(0)


def _by_kernel(
    layout: Layout,
    start: int,
    query: torch.Tensor,
    keys: list[torch.Tensor],
    values: list[torch.Tensor],
    sight: Sight,
    weighing: _Weighing,
) -> torch.Tensor:
    """Attend with PyTorch's kernels, which add numbers of half precision up in full precision."""
    key, value = torch.cat(keys, 1), torch.cat(values, 1)
    rows = query.shape[1]
    mask = layout.mask(start, rows, 0, sight, query.device)
    share = query.shape[0] // key.shape[0]
    if weighing.softcap is None and weighing.sinks is None:
        seen = functional.scaled_dot_product_attention(
            query[None],
            key[None],
            value[None],
            mask,
            scale=weighing.scaling,
            enable_gqa=share > 1,
        )[0]
    else:
        key, value = key.repeat_interleave(share, 0), value.repeat_interleave(share, 0)
        scores = query @ key.transpose(1, 2) * weighing.scaling
        seen = weighing.weights(scores, mask, slice(None)).to(value.dtype) @ value
    return seen.transpose(0, 1)


AttentionInterface.register(NAME, tree_attention)
