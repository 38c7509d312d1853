"""Reading from the first token: what begins another text is read on its way."""

from __future__ import annotations

import pytest
import torch

from langchain_safeguard.engines.next_token import Context, PlainNextToken
from langchain_safeguard.engines.tree_next_token import own_attention
from tests.unit.engines.shapes import PLAIN_SHAPES, TREE_SHAPES, tiny, words


@pytest.mark.parametrize("shape", [*TREE_SHAPES, *PLAIN_SHAPES])
def test_it_gives_what_the_model_gives(shape: str) -> None:
    model = tiny(shape)
    model.set_attn_implementation(own_attention(model))
    passes = []
    model.register_forward_hook(lambda *_: passes.append(1))
    ids, other = words(30, seed=1), words(12, seed=2)
    texts = [ids[:20], other, ids, ids[:20], [*ids[:20], 7, 9], other[:5], ids[:25]]
    contexts = [Context(text, None if at % 2 else [4, 9]) for at, text in enumerate(texts)]
    found = PlainNextToken(model).logits(contexts)
    assert len(passes) == 3
    for context, row in zip(contexts, found, strict=True):
        with torch.no_grad():
            expected = model(input_ids=torch.tensor([context.ids]), use_cache=False).logits[0, -1]
        if context.choices is not None:
            expected = expected[list(context.choices)]
        assert row.dtype == torch.float32
        assert torch.allclose(row, expected, atol=1e-4)
