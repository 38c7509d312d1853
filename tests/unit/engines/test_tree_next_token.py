"""A token tree gives what the model itself gives: cached, packed, cut, evicted, short of memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_safeguard.engines import tree_attention
from langchain_safeguard.engines.next_token import Context, PlainNextToken
from langchain_safeguard.engines.tree_next_token import TreeNextToken, agrees, own_attention
from langchain_safeguard.errors import GuardError
from tests.unit.engines.shapes import PLAIN_SHAPES, TREE_SHAPES, WINDOW, WORDS, tiny, words

CHOICES = [3, 5, 8, 13, 21, 34]
CLOSE = 1e-5


class Both:
    """A model read both ways."""

    def __init__(self, shape: str, *, pass_tokens: int = 512, budget: int = 1 << 30) -> None:
        self.model = tiny(shape)
        self.tree = TreeNextToken(self.model, budget=budget, pass_tokens=pass_tokens)

    def plain(self, contexts: Sequence[Context]) -> list[torch.Tensor]:
        self.model.set_attn_implementation(own_attention(self.model))
        try:
            return PlainNextToken(self.model).logits(contexts)
        finally:
            self.model.set_attn_implementation(tree_attention.NAME)

    def compare(self, *batches: Sequence[Context]) -> None:
        """Ask the tree for one batch after the other, and the model's own code for each text."""
        for contexts in batches:
            found = self.tree.logits(contexts)
            for one, other in zip(self.plain(contexts), found, strict=True):
                assert other.dtype == torch.float32
                assert (one.softmax(0) - other.softmax(0)).abs().max() <= CLOSE
                assert torch.allclose(one, other, atol=1e-4)


@pytest.fixture(params=TREE_SHAPES)
def both(request: pytest.FixtureRequest) -> Both:
    return Both(request.param)


def family(count: int, *, policy: int = 40, longest: int = 25) -> list[Context]:
    """Some texts that begin with the same policy, each of another length."""
    prefix = words(policy, seed=1)
    return [
        Context(prefix + words(1 + at * longest // count, seed=2 + at), CHOICES, keep=policy)
        for at in range(count)
    ]


def test_shapes_are_opinionated(both: Both) -> None:
    """What stands far back, at the window's edge and near shows in what comes next."""
    ids = words(40, seed=5)
    [whole] = both.plain([Context(ids, None)])
    for at in (30, 39):
        [changed] = both.plain([Context([*ids[:at], ids[at] ^ 1, *ids[at + 1 :]], None)])
        assert (whole.softmax(0) - changed.softmax(0)).abs().max() > 1e-3
    assert len(ids) > WINDOW


def test_one_text(both: Both) -> None:
    both.compare([Context(words(50, seed=1), CHOICES)])


def test_the_whole_vocabulary(both: Both) -> None:
    both.compare([Context(words(20, seed=1), None), Context(words(20, seed=2), CHOICES)])
    assert len(both.tree.logits([Context(words(20, seed=1), None)])[0]) == WORDS


def test_a_policy_is_read_once(both: Both) -> None:
    texts = family(6)
    both.compare(texts[:1], texts[1:3], texts[3:])
    assert both.tree.computed == len(texts[0].ids) + sum(len(each.ids) - 40 for each in texts[1:])


def test_many_at_once_that_share_what_is_not_read_yet(both: Both) -> None:
    texts = family(6)
    both.compare(texts)
    assert both.tree.computed == 40 + sum(len(each.ids) - 40 for each in texts)
    assert both.tree.passes == 1


def test_asked_again(both: Both) -> None:
    texts = [Context(each.ids, CHOICES, keep=len(each.ids) - 1) for each in family(4)]
    both.compare(texts)
    before = both.tree.computed
    both.compare(texts, texts)
    assert both.tree.computed == before + 2 * len(texts)


def test_the_same_text_twice_at_once(both: Both) -> None:
    text = Context(words(30, seed=3), CHOICES, keep=30)
    both.compare([text, text])
    both.compare([text, text])


def test_a_text_and_its_beginnings_at_once(both: Both) -> None:
    ids = words(45, seed=4)
    texts = [Context(ids[:count], CHOICES, keep=30) for count in (45, 31, 44, 10, 45, 32)]
    both.compare(texts, texts[::-1])


def test_a_text_that_grows_token_by_token(both: Both) -> None:
    ids = words(60, seed=5)
    for count in range(40, 60):
        both.compare([Context(ids[:count], None, keep=count)])
    assert both.tree.computed == 59


def test_two_texts_that_write_the_same(both: Both) -> None:
    """Twins grow in step; what they write is one node, not two."""
    ids = [*words(20, seed=6), 7, 7, 7, 7, 7, 7]
    for count in range(20, 26):
        texts = [Context(ids[:count], None, keep=count) for _ in range(3)]
        both.compare(texts)
    assert both.tree.tree.tokens == 25


@pytest.mark.parametrize("most", [16, 33])
@pytest.mark.parametrize("shape", TREE_SHAPES)
def test_long_texts_are_read_in_several_passes(shape: str, most: int) -> None:
    both = Both(shape, pass_tokens=most)
    texts = family(5, policy=70)
    both.compare(texts, texts)
    total = 70 + sum(len(each.ids) - 70 for each in texts)
    assert both.tree.passes >= total / most


@pytest.mark.parametrize("shape", TREE_SHAPES)
def test_what_was_evicted_is_read_again(shape: str) -> None:
    both = Both(shape, budget=0)
    both.tree.tree.least = 48
    for seed in range(3):
        both.compare(
            [Context(words(30, seed=10 + at), CHOICES, keep=29) for at in range(4)],
            family(3),
            [Context(words(64, seed=seed), CHOICES, keep=64)],
        )
        assert both.tree.tree.tokens <= 48


def test_a_long_batch_does_not_hold_all_its_texts_at_once() -> None:
    both = Both("llama", budget=0)
    both.tree.tree.least = 64
    held = []
    forward = both.tree._decoder.register_forward_hook(
        lambda *_: held.append(both.tree.tree.tokens)
    )
    texts = [Context(words(40, seed=at), CHOICES, keep=40) for at in range(12)]
    found = both.tree.logits(texts)
    forward.remove()
    assert max(held) <= 64 + 64 + 40
    for one, other in zip(both.plain(texts), found, strict=True):
        assert torch.allclose(one, other, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(
    batches=st.lists(
        st.lists(
            st.tuples(
                st.lists(st.integers(3, 6), min_size=1, max_size=40),
                st.integers(0, 40),
                st.booleans(),
            ),
            min_size=1,
            max_size=4,
        ),
        min_size=1,
        max_size=4,
    ),
    most=st.integers(16, 64),
    least=st.integers(1, 64),
)
@pytest.mark.parametrize("shape", ["llama", "gemma2", "gpt-oss"])
def test_any_texts_in_any_order(
    shape: str, batches: list[list[tuple[list[int], int, bool]]], most: int, least: int
) -> None:
    both = _KEPT.setdefault(shape, Both(shape, budget=0))
    both.tree._most = most
    both.tree.tree.least = least
    both.compare(
        *(
            [
                Context(ids, None if whole else CHOICES, keep=min(keep, len(ids)))
                for ids, keep, whole in batch
            ]
            for batch in batches
        )
    )


_KEPT: dict[str, Both] = {}


class Memory:
    """Memory that holds so many tokens at once: a forward pass over more fails."""

    def __init__(self, both: Both, tokens: int, error: type[Exception]) -> None:
        self.failures = 0

        def check(module: Any, given: Any) -> None:
            if given[0].shape[1] > tokens:
                self.failures += 1
                raise error("DefaultCPUAllocator: can't allocate memory")

        # In the middle, when some layers have stored their keys already.
        both.model.model.layers[1].register_forward_pre_hook(check)


@pytest.fixture(params=[torch.OutOfMemoryError, RuntimeError])
def short(request: pytest.FixtureRequest) -> Iterator[type[Exception]]:
    yield request.param


@pytest.mark.parametrize("shape", ["llama", "gemma2"])
def test_when_memory_runs_out_passes_become_shorter(shape: str, short: type[Exception]) -> None:
    both = Both(shape)
    texts = family(5, policy=70)
    expected = both.plain(texts)
    memory = Memory(both, 40, short)
    found = both.tree.logits(texts)
    assert memory.failures == 4  # with 512, 256, 128 and 64 tokens
    for one, other in zip(expected, found, strict=True):
        assert torch.allclose(one, other, atol=1e-4)
    both.tree.logits(family(3, policy=75))
    assert memory.failures == 4, "what was learnt is forgotten"


def test_when_not_even_a_few_tokens_fit_it_says_so(short: type[Exception]) -> None:
    both = Both("llama")
    Memory(both, 4, short)
    with pytest.raises(GuardError, match="memory ran out"):
        both.tree.logits(family(2))
    assert both.tree.tree.tokens == 0


def test_after_an_error_nothing_half_read_is_left() -> None:
    both = Both("llama")
    texts = family(3)

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    hook = both.model.model.layers[2].register_forward_pre_hook(fail)
    with pytest.raises(ZeroDivisionError):
        both.tree.logits(texts)
    hook.remove()
    assert both.tree.tree.tokens == 0
    both.compare(texts)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", ["llama", "gemma2", "gpt-oss", "mistral"])
def test_half_precision(shape: str, dtype: torch.dtype) -> None:
    model = tiny(shape).to(dtype)
    tree = TreeNextToken(model, budget=1 << 30, pass_tokens=512)
    texts = family(4)
    found = [*tree.logits(texts[:2]), *tree.logits(texts)]
    model.set_attn_implementation(own_attention(model))
    expected = PlainNextToken(model).logits([*texts[:2], *texts])
    for one, other in zip(expected, found, strict=True):
        assert (one.softmax(0) - other.softmax(0)).abs().max() <= 0.05


@pytest.mark.parametrize("shape", TREE_SHAPES)
def test_a_tree_that_fits_is_recognised(shape: str) -> None:
    model = tiny(shape)
    tree = TreeNextToken(model, budget=1 << 30, pass_tokens=512)
    assert agrees(model, tree, WORDS, 1e-4)
    assert tree.tree.tokens == 0


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("shape", PLAIN_SHAPES)
def test_a_tree_that_does_not_fit_is_recognised(shape: str, flat: bool) -> None:
    model = tiny(shape)
    if flat:
        # As models are before any training: all probabilities are nearly the same.
        torch.nn.init.normal_(model.get_output_embeddings().weight, std=1e-4)
    try:
        tree = TreeNextToken(model, budget=1 << 30, pass_tokens=512)
        assert not agrees(model, tree, WORDS, 1e-4)
    except ValueError as error:
        assert "attention implementation" in str(error)
