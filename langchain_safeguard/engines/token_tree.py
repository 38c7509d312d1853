"""What a model has read before, as a tree of tokens: what prompts share is computed once.

A node holds a run of tokens and, once computed, their keys and values in every layer. Prompts with
the same policy, the turns of one conversation, and an answer that grows while it streams share
their beginnings, whoever asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from weakref import finalize

import torch


class Node:
    """A run of tokens after those of its parent.

    Attributes:
        ids: The tokens.
        start: The position of the first of them.
        keys: Per layer (key heads, tokens, size of a head); empty while not computed.
        values: Likewise.
        hidden: The last hidden states (tokens, width); kept only while a run lasts.
        used: When it was last needed, counted in runs.
    """

    __slots__ = ("children", "hidden", "ids", "keys", "parent", "start", "used", "values")

    def __init__(self, ids: Sequence[int], start: int, parent: Node | None) -> None:
        self.ids = list(ids)
        self.start = start
        self.parent = parent
        self.children: dict[int, Node] = {}
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []
        self.hidden: torch.Tensor | None = None
        self.used = 0

    @property
    def computed(self) -> bool:
        """Tell whether its keys and values are there."""
        return bool(self.keys) or not self.ids

    def path(self) -> list[Node]:
        """Return the nodes from the first tokens down to this one."""
        nodes: list[Node] = []
        node: Node | None = self
        while node is not None and node.parent is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]


class TokenTree:
    """Token runs by their beginnings, bounded by the bytes of their keys and values.

    Args:
        budget: The bytes to keep between runs; what was not used for longest goes first.
        least: The tokens to keep in any case, so that a policy always fits.
    """

    def __init__(self, budget: int, least: int = 4096) -> None:
        """Start empty."""
        self.budget = budget
        self.least = least
        self.clock = 0
        self.fresh = 0
        """How many tokens were added in this run."""
        self._root = Node((), 0, None)
        # Nodes hold each other, and their memory is to come back with the tree's.
        finalize(self, _unlink, self._root).atexit = False

    def insert(self, ids: Sequence[int]) -> Node:
        """Return the node at whose end `ids` ends; what is new in it is not computed yet."""
        node, at = self._root, 0
        while at < len(ids):
            child = node.children.get(ids[at])
            if child is None:
                child = Node(ids[at:], at, node)
                node.children[ids[at]] = child
                self.fresh += len(child.ids)
            same = _shared(child.ids, ids, at)
            if same < len(child.ids):
                child = self._split(child, same)
            child.used = self.clock
            node, at = child, at + same
        return node

    def begin(self, node: Node, tokens: int) -> Node:
        """Split a node; return its first part, of that many tokens."""
        return self._split(node, tokens)

    def reopen(self, node: Node) -> None:
        """Have the last token of a node computed again, for its hidden state."""
        if len(node.ids) > 1:
            self._split(node, len(node.ids) - 1)
        node.keys, node.values = [], []

    def join(self, node: Node) -> None:
        """Make one of a node and the one before it, if nothing else follows that one."""
        before = node.parent
        if before is None or before.parent is None or [*before.children.values()] != [node]:
            return
        pairs = zip(before.keys, node.keys, strict=True)
        before.keys = [torch.cat(pair, 1) for pair in pairs]
        pairs = zip(before.values, node.values, strict=True)
        before.values = [torch.cat(pair, 1) for pair in pairs]
        before.ids += node.ids
        before.children = node.children
        for child in node.children.values():
            child.parent = before

    def truncate(self, ids: Sequence[int], keep: int) -> None:
        """Forget what follows the first `keep` tokens of `ids`."""
        node, at = self._root, 0
        while at < keep:
            child = node.children.get(ids[at])
            if child is None:
                return
            same = min(_shared(child.ids, ids, at), keep - at)
            if same < len(child.ids):
                if at + same < keep:
                    return
                child = self._split(child, same)
            node, at = child, at + same
        if at < len(ids) and (gone := node.children.pop(ids[at], None)):
            _unlink(gone)

    def settle(self) -> None:
        """End a run: forget what was not computed, hidden states, and what exceeds the budget."""
        self.clock += 1
        self.fresh = 0
        for node in [*self.nodes()]:
            node.hidden = None
            if not node.computed:
                self._remove(node)
        self._shrink()

    def halve(self) -> None:
        """Keep half as much from now on; what this run does not need goes at once."""
        self.budget //= 2
        self.least //= 2
        self._shrink()

    @property
    def room(self) -> int:
        """Return how many tokens are kept between runs."""
        for node in self.nodes():
            if node.keys:
                each = sum(tensor.nbytes for tensor in (*node.keys, *node.values))
                return max(self.budget * len(node.ids) // max(each, 1), self.least)
        return self.least

    def _shrink(self) -> None:
        """Forget what exceeds the budget, the longest unused first, but nothing of this run."""
        excess = self.tokens - self.room
        leaves = [node for node in self.nodes() if not node.children]
        while excess > 0 and leaves:
            oldest = min(leaves, key=lambda node: (node.used, -node.start))
            if oldest.used == self.clock:
                return
            leaves.remove(oldest)
            excess -= len(oldest.ids)
            self._remove(oldest)
            parent = oldest.parent
            if parent is not None and parent is not self._root and not parent.children:
                leaves.append(parent)

    def clear(self) -> None:
        """Forget everything that is computed."""
        _unlink(self._root)

    @property
    def tokens(self) -> int:
        """Return how many tokens are kept."""
        return sum(len(node.ids) for node in self.nodes())

    def nodes(self) -> Iterable[Node]:
        """Go through all nodes, parents before their children."""
        return _below(self._root)

    @staticmethod
    def _remove(node: Node) -> None:
        if node.parent is not None and node.parent.children.get(node.ids[0]) is node:
            del node.parent.children[node.ids[0]]

    @staticmethod
    def _split(node: Node, at: int) -> Node:
        """Cut a node in two; return the first part."""
        head = Node(node.ids[:at], node.start, node.parent)
        head.used = node.used
        # Copies, so that forgetting one part frees its memory.
        head.keys = [keys[:, :at].clone() for keys in node.keys]
        head.values = [values[:, :at].clone() for values in node.values]
        node.keys = [keys[:, at:].clone() for keys in node.keys]
        node.values = [values[:, at:].clone() for values in node.values]
        if node.hidden is not None:
            head.hidden, node.hidden = node.hidden[:at], node.hidden[at:]
        assert node.parent is not None
        node.parent.children[node.ids[0]] = head
        node.ids, node.start, node.parent = node.ids[at:], node.start + at, head
        head.children[node.ids[0]] = node
        return head


def _below(node: Node) -> Iterable[Node]:
    stack = [*node.children.values()]
    while stack:
        node = stack.pop()
        stack += node.children.values()
        yield node


def _unlink(node: Node) -> None:
    """Part a node from what follows it: they hold each other, and memory is to come back now."""
    for each in [node, *_below(node)]:
        each.children = {}


def _shared(run: Sequence[int], ids: Sequence[int], at: int) -> int:
    """Return how many tokens of `run` stand in `ids` from `at` on."""
    if run == ids[at : at + len(run)]:
        return len(run)
    count = 0
    for one, other in zip(run, ids[at : at + len(run)], strict=False):
        if one != other:
            break
        count += 1
    return count
