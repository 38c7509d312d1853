"""How parts of a token tree stand in one row, without padding, and who sees whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from langchain_safeguard.engines.token_tree import Node


@dataclass
class Run:
    """Nodes of one path that follow each other, side by side in the row.

    Attributes:
        before: The nodes that lead to them.
        nodes: The nodes.
        begin: Where they begin in the row.
        end: One past where they end in the row.
    """

    before: list[Node]
    nodes: list[Node]
    begin: int
    end: int

    @property
    def start(self) -> int:
        """Return the position of their first token in its text."""
        return self.nodes[0].start


@dataclass(frozen=True)
class Sight:
    """How far back a token sees.

    Attributes:
        window: How many of the last positions, itself included; `None` means all.
        chunk: Only those in its own stretch of so many positions; `None` means all.
    """

    window: int | None = None
    chunk: int | None = None

    def first(self, position: Any) -> Any:
        """Return the first position that a token sees; it may lie before the beginning."""
        if self.window is not None:
            return position - self.window + 1
        return 0 if self.chunk is None else position // self.chunk * self.chunk


class Layout:
    """Nodes in one row; afterwards they hold keys and values.

    Args:
        nodes: Nodes that are not computed, parents first.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        """Lay them out."""
        self.nodes = nodes
        self.lengths = [len(node.ids) for node in nodes]
        self.runs: list[Run] = []
        self._masks: dict[tuple[object, ...], torch.Tensor] = {}
        at = 0
        for node, length in zip(nodes, self.lengths, strict=True):
            if self.runs and node.parent is self.runs[-1].nodes[-1]:
                self.runs[-1].nodes.append(node)
                self.runs[-1].end += length
            else:
                self.runs.append(Run(node.path()[:-1], [node], at, at + length))
            at += length

    def keep(self, key: torch.Tensor, value: torch.Tensor) -> int:
        """Store one layer's keys and values (heads, tokens, size); return which layer it is."""
        parts = zip(
            key.split_with_sizes(self.lengths, 1),
            value.split_with_sizes(self.lengths, 1),
            strict=True,
        )
        for node, (keys, values) in zip(self.nodes, parts, strict=True):
            # Copies, so that forgetting a node frees its memory.
            node.keys.append(keys.clone(memory_format=torch.contiguous_format))
            node.values.append(values.clone(memory_format=torch.contiguous_format))
        return len(self.nodes[0].keys) - 1

    def mask(
        self, start: int, rows: int, begin: int, sight: Sight, device: torch.device
    ) -> torch.Tensor | None:
        """Tell which keys, from position `begin` on, each of `rows` tokens from `start` on sees.

        `None` means all of them.
        """
        if rows == 1 and sight.first(start) <= begin:
            return None
        known = (start, rows, begin, sight, device)
        if known not in self._masks:
            row = torch.arange(start, start + rows, device=device)[:, None]
            column = torch.arange(begin, start + rows, device=device)[None]
            self._masks[known] = (column <= row) & (column >= sight.first(row))
        return self._masks[known]
