"""A token tree against a set of texts: what was read is known, what was not is not."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from langchain_safeguard.engines.token_tree import Node, TokenTree

LAYERS = 2
BYTES = LAYERS * 2 * 4
"""Of one token: a float for its key and one for its value in each layer."""
TEXTS = st.lists(st.integers(0, 2), min_size=1, max_size=8)


def keys_of(ids: list[int], start: int) -> torch.Tensor:
    """Keys that tell tokens and positions apart: (1, tokens, 1)."""
    return torch.tensor([[[100.0 * (start + at) + token] for at, token in enumerate(ids)]])


def compute(node: Node) -> None:
    for each in node.path():
        if not each.computed:
            each.keys = [keys_of(each.ids, each.start) + layer for layer in range(LAYERS)]
            each.values = [-key for key in each.keys]
            each.hidden = each.keys[0][0]


def known(tree: TokenTree) -> dict[tuple[int, ...], Node]:
    """From every beginning that the tree holds to the node in which it ends."""
    found = {}
    for node in tree.nodes():
        before = [token for each in node.path()[:-1] for token in each.ids]
        for count in range(1, len(node.ids) + 1):
            found[tuple(before + node.ids[:count])] = node
    return found


def beginnings(ids: list[int]) -> set[tuple[int, ...]]:
    return {tuple(ids[:count]) for count in range(1, len(ids) + 1)}


class Reader(RuleBasedStateMachine):
    """Reads texts, forgets some, and compares with a plain set of their beginnings."""

    @initialize(budget=st.integers(0, 30), least=st.integers(1, 10))
    def begin(self, budget: int, least: int) -> None:
        self.tree = TokenTree(budget * BYTES, least=least)
        self.known: set[tuple[int, ...]] = set()

    @rule(texts=st.lists(TEXTS, min_size=1, max_size=3), failed=st.booleans())
    def read(self, texts: list[list[int]], failed: bool) -> None:
        leaves = [self.tree.insert(ids) for ids in texts]
        assert self.tree.fresh == len(set().union(*map(beginnings, texts)) - self.known)
        if not failed:
            for ids, leaf in zip(texts, leaves, strict=True):
                assert [token for node in leaf.path() for token in node.ids] == ids
                compute(leaf)
            self.known |= set().union(*map(beginnings, texts))
        self._settle({ids for text in texts for ids in beginnings(text)})

    @rule(ids=TEXTS)
    def read_the_last_token_again(self, ids: list[int]) -> None:
        leaf = self.tree.insert(ids)
        compute(leaf)
        leaf.hidden = None
        self.tree.reopen(leaf)
        assert leaf.ids == ids[-1:]
        assert not leaf.computed
        compute(leaf)
        self.known |= beginnings(ids)
        self._settle(beginnings(ids))

    @rule(ids=TEXTS, more=TEXTS, twice=st.booleans())
    def write(self, ids: list[int], more: list[int], twice: bool) -> None:
        compute(self.tree.insert(ids))
        for token in more:
            ids = [*ids, token]
            leaf = self.tree.insert(ids)
            compute(leaf)
            if len(leaf.ids) == 1:
                self.tree.join(leaf)
                if twice:
                    self.tree.join(leaf)
        self.known |= beginnings(ids)
        self._settle(beginnings(ids))

    @rule(ids=TEXTS, keep=st.integers(0, 8))
    def forget(self, ids: list[int], keep: int) -> None:
        keep = min(keep, len(ids))
        self.tree.truncate(ids, keep)
        if keep < len(ids):
            gone = tuple(ids[: keep + 1])
            self.known = {each for each in self.known if each[: keep + 1] != gone}

    @rule()
    def clear(self) -> None:
        self.tree.clear()
        self.known = set()

    @rule(ids=TEXTS)
    def run_short_of_memory(self, ids: list[int]) -> None:
        leaf = self.tree.insert(ids)
        compute(leaf)
        before = self.tree.budget
        self.tree.halve()
        assert self.tree.budget == before // 2
        left = set(known(self.tree))
        assert beginnings(ids) <= left, "what a run needs went"
        self.known = left
        self.tree.budget = before
        self._settle(beginnings(ids))

    def _settle(self, used: set[tuple[int, ...]]) -> None:
        self.tree.settle()
        left = set(known(self.tree))
        assert left <= self.known
        room = self.tree.room
        if len(self.known) <= room:
            assert left == self.known
        assert self.tree.tokens <= room
        if used & self.known != used & left:
            assert left <= used, "what was just used went before what was not"
        self.known = left

    @invariant()
    def holds_together(self) -> None:
        if not hasattr(self, "tree"):
            return
        found = known(self.tree)
        assert set(found) == self.known
        for node in found.values():
            for layer in range(LAYERS):
                assert torch.equal(node.keys[layer], keys_of(node.ids, node.start) + layer)
                assert torch.equal(node.values[layer], -node.keys[layer])
            assert node.start == sum(len(each.ids) for each in node.path()[:-1])
            assert node.hidden is None
            for first, child in node.children.items():
                assert child.ids[0] == first
                assert child.parent is node


TestReader = Reader.TestCase
TestReader.settings = settings(max_examples=150, stateful_step_count=20, deadline=None)


def test_prompts_share_the_node_of_their_beginning() -> None:
    tree = TokenTree(1 << 20)
    one = tree.insert([1, 2, 3, 4])
    other = tree.insert([1, 2, 5])
    assert one.path()[0] is other.path()[0]
    assert one.path()[0].ids == [1, 2]
    assert tree.fresh == 5


def test_forgetting_a_part_frees_its_memory() -> None:
    tree = TokenTree(1 << 20)
    compute(tree.insert([1, 2, 3, 4]))
    tree.settle()
    tree.truncate([1, 2, 3, 4], 2)
    [node] = tree.nodes()
    assert node.keys[0].untyped_storage().nbytes() == 2 * 4


@pytest.mark.parametrize("least", [1, 4])
def test_the_longest_unused_goes_first(least: int) -> None:
    tree = TokenTree(4 * BYTES, least=least)
    for ids in ([1, 1], [2, 2], [1, 1], [3, 3]):
        compute(tree.insert(ids))
        tree.settle()
    assert {node.ids[0] for node in tree.nodes()} == {1, 3}
