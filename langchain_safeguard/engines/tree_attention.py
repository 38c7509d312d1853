"""Attention over a token tree: each run of tokens looks at itself and at the runs that led to it.

Registered with transformers as an attention implementation, so that a model's own code computes
everything else. Several runs stand in one row without padding, and none sees another that is not
on its own path.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface

from langchain_safeguard.engines.token_tree import Node

NAME = "langchain_safeguard_tree"

_now = threading.local()


class Packed:
    """The nodes that stand in one row; while it is entered, attention in this thread is over it.

    Args:
        nodes: Nodes that are not computed, parents first. Afterwards they hold keys and values.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        """Lay the nodes out."""
        self.blocks: list[tuple[Node, list[Node], int, int]] = []
        at = 0
        for node in nodes:
            self.blocks.append((node, node.path(), at, at + len(node.ids)))
            at += len(node.ids)
        self.masks: dict[tuple[object, ...], torch.Tensor] = {}

    def __enter__(self) -> Packed:
        """Make it this thread's layout."""
        _now.packed = self
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """End it; after an error the nodes count as not computed."""
        _now.packed = None
        if kind is not None:
            for node, *_rest in self.blocks:
                node.keys, node.values = [], []


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
        module: The attention layer; its `layer_idx` says which.
        query: Of all nodes, one after the other.
        key: Likewise, with as many heads as there are keys.
        value: Likewise.
        attention_mask: Not used: the tree says who sees whom.
        scaling: The factor of the scores; `None` means one over the root of the size.
        sliding_window: How many of the last positions a token sees, itself included.
        softcap: Soft limit of the scores (Gemma 2).
        s_aux: Per head the logit of a sink that takes weight and gives nothing (gpt-oss).
    """
    packed: Packed = _now.packed
    for node, _path, begin, end in packed.blocks:
        node.keys.append(key[0, :, begin:end].contiguous())
        node.values.append(value[0, :, begin:end].contiguous())
    layer = len(packed.blocks[0][0].keys) - 1
    parts = []
    for node, path, begin, end in packed.blocks:
        keys = torch.cat([each.keys[layer] for each in path], 1)
        values = torch.cat([each.values[layer] for each in path], 1)
        mask = _mask(packed.masks, node, keys, sliding_window)
        parts.append(_attend(query[0, :, begin:end], keys, values, mask, scaling, softcap, s_aux))
    return torch.cat(parts, 1).transpose(0, 1)[None], None


def _mask(
    masks: dict[tuple[object, ...], torch.Tensor],
    node: Node,
    keys: torch.Tensor,
    window: int | None,
) -> torch.Tensor | None:
    """Return which keys each token of a node may see; `None` means all of them."""
    length = node.start + len(node.ids)
    window = None if window is None or window >= length else window
    if len(node.ids) == 1 and window is None:
        return None
    known = (node.start, len(node.ids), window, keys.device)
    if known not in masks:
        rows = torch.arange(node.start, length, device=keys.device)[:, None]
        columns = torch.arange(length, device=keys.device)[None]
        seen = columns <= rows
        if window is not None:
            seen &= columns > rows - window
        masks[known] = seen
    return masks[known]


def _attend(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Return (heads, tokens, size)."""
    shared = query.shape[0] // keys.shape[0]
    if softcap is None and sinks is None:
        return functional.scaled_dot_product_attention(
            query[None], keys[None], values[None], mask, scale=scaling, enable_gqa=shared > 1
        )[0]
    keys, values = keys.repeat_interleave(shared, 0), values.repeat_interleave(shared, 0)
    scores = query @ keys.transpose(1, 2) * (scaling or query.shape[-1] ** -0.5)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    if sinks is not None:
        scores = torch.cat([scores, sinks.reshape(-1, 1, 1).expand(-1, scores.shape[1], 1)], 2)
    weights = scores.softmax(-1, dtype=torch.float32).to(values.dtype)
    return weights[:, :, : keys.shape[1]] @ values


AttentionInterface.register(NAME, tree_attention)
