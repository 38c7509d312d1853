"""Products by the faster library: the same numbers, and only where nothing else is asked for."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from langchain_safeguard.engines import products
from tests.unit.engines.shapes import tiny, words


@pytest.fixture(params=[True, False], ids=["oneDNN", "MKL"])
def faster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whichever library is the faster one here: the other way is tested, too."""
    answer = bool(request.param and torch.backends.mkldnn.is_available())
    monkeypatch.setattr(products, "onednn_is_faster", lambda: answer)
    return answer


@settings(max_examples=80, deadline=None)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 70),
    inner=st.integers(1, 70),
    biased=st.booleans(),
    turned=st.booleans(),
)
def test_products_are_those_of_torch(
    rows: int, columns: int, inner: int, biased: bool, turned: bool
) -> None:
    torch.manual_seed(rows + 100 * columns)
    left = torch.randn(rows, inner)
    weight = torch.randn(inner, columns).t() if turned else torch.randn(columns, inner)
    bias = torch.randn(columns) if biased else None
    expected = functional.linear(left, weight, bias)
    for answer in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(products, "onednn_is_faster", lambda answer=answer: answer)
            with torch.inference_mode():
                assert torch.allclose(products.product(left, weight, bias), expected, atol=1e-4)


def test_a_part_of_a_matrix() -> None:
    big = torch.randn(20, 90)
    part, weight = big[:, 10:40], torch.randn(50, 8, 30)[:, 3]
    assert torch.allclose(products.product(part, weight), part @ weight.t(), atol=1e-4)


def test_a_hastened_model_gives_the_same(faster: bool) -> None:
    model = tiny("llama")
    own = copy.deepcopy(model)
    products.hasten(model)
    changed = [layer for layer in model.modules() if isinstance(layer, products.HastenedLinear)]
    assert bool(changed) == faster
    for count in (1, 3, 20):
        ids = torch.tensor([words(count, seed=count)])
        with torch.inference_mode():
            assert torch.allclose(model(ids).logits, own(ids).logits, atol=1e-4)


def test_a_hastened_model_can_still_be_trained_and_turned_to_half_precision(faster: bool) -> None:
    model = tiny("llama")
    products.hasten(model)
    ids = torch.tensor([words(9, seed=1)])
    model(input_ids=ids, labels=ids).loss.backward()
    assert model.model.layers[0].mlp.up_proj.weight.grad.abs().sum() > 0
    model.to(torch.bfloat16)
    with torch.inference_mode():
        assert model(ids).logits.dtype == torch.bfloat16


def test_layers_that_compute_something_else_are_left_alone(faster: bool) -> None:
    class Doubled(torch.nn.Linear):
        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(rows)

    doubled, hooked = Doubled(8, 8), torch.nn.Linear(8, 8)

    def triple(rows: torch.Tensor) -> Any:
        return 3 * functional.linear(rows, hooked.weight, hooked.bias)

    hooked.forward = triple  # type: ignore[method-assign]
    model = torch.nn.ModuleList([doubled, hooked])
    rows = torch.randn(6, 8)
    with torch.inference_mode():
        before = [layer(rows) for layer in model]
        products.hasten(model)
        for layer, expected in zip(model, before, strict=True):
            assert torch.equal(layer(rows), expected)


def test_the_choice_is_made_once() -> None:
    first = products.onednn_is_faster()
    info = products.onednn_is_faster.cache_info()
    assert products.onednn_is_faster() == first
    assert products.onednn_is_faster.cache_info().hits == info.hits + 1


def test_without_the_operator_torch_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise AttributeError("no such operator")

    monkeypatch.setattr(products, "_onednn", gone)
    assert products.onednn_is_faster.__wrapped__() is False


def test_layers_of_other_numbers_are_left_alone(faster: bool) -> None:
    model = tiny("llama").to(torch.bfloat16)
    products.hasten(model)
    assert not any(isinstance(layer, products.HastenedLinear) for layer in model.modules())
