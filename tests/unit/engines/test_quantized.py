"""Models in 4 and 8 bits, and with adapters: a token tree gives what they themselves give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from langchain_safeguard.engines.next_token import Context, PlainNextToken
from langchain_safeguard.engines.tree_next_token import TreeNextToken, agrees, own_attention
from tests.unit.engines.shapes import WORDS, tiny, words

CHOICES = [3, 5, 8, 13]


def quantized(shape: str, folder: Path, bits: int, threshold: float = 0.0) -> Any:
    tiny(shape).save_pretrained(folder)
    config = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=bits == 4,
        load_in_8bit=bits == 8,
        llm_int8_threshold=threshold,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.float32,
    )
    return AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=config, dtype=torch.float32, device_map="cpu"
    ).eval()


def texts() -> list[Context]:
    policy = words(40, seed=1)
    return [Context(policy + words(5 + at, seed=2 + at), CHOICES, keep=44 + at) for at in range(4)]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("shape", ["llama", "mistral", "gemma2", "qwen3"])
def test_quantized_models(shape: str, bits: int, tmp_path: Path) -> None:
    model = quantized(shape, tmp_path, bits)
    kinds = {type(layer).__name__ for layer in model.modules()}
    assert ("Linear4bit" if bits == 4 else "Linear8bitLt") in kinds
    model.set_attn_implementation(own_attention(model))
    expected = PlainNextToken(model).logits(texts())
    [own] = PlainNextToken(tiny(shape)).logits(texts()[:1])
    assert (own.softmax(0) - expected[0].softmax(0)).abs().max() > 1e-4, "nothing was rounded"
    tree = TreeNextToken(model, budget=1 << 30, pass_tokens=64)
    assert agrees(model, tree, WORDS, 1e-3)
    for _ in range(2):
        for one, other in zip(expected, tree.logits(texts()), strict=True):
            assert (one.softmax(0) - other.softmax(0)).abs().max() <= 1e-3


@pytest.mark.parametrize("shape", ["llama", "mistral", "gemma2", "qwen3"])
def test_outliers_in_eight_bits_depend_on_what_stands_beside(shape: str, tmp_path: Path) -> None:
    """A number that is too large for 8 bits keeps its whole column exact, in all rows at once.

    So what a model in 8 bits says of a text varies with the length of a pass, whoever runs it.
    """
    model = quantized(shape, tmp_path, 8, threshold=6.0)
    model.set_attn_implementation(own_attention(model))
    expected = PlainNextToken(model).logits(texts())
    tree = TreeNextToken(model, budget=1 << 30, pass_tokens=64)
    assert agrees(model, tree, WORDS, 0.05)
    for one, other in zip(expected, tree.logits(texts()), strict=True):
        assert (one.softmax(0) - other.softmax(0)).abs().max() <= 0.03


@pytest.mark.parametrize("merged", [False, True])
def test_models_with_adapters(merged: bool) -> None:
    from peft import LoraConfig, get_peft_model

    targets = ["q_proj", "v_proj", "up_proj", "lm_head"]
    adapted = get_peft_model(tiny("llama"), LoraConfig(r=4, target_modules=targets))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    adapted.eval()
    model: Any = adapted.merge_and_unload() if merged else adapted.get_base_model()
    expected = PlainNextToken(model).logits(texts())
    [own] = PlainNextToken(tiny("llama")).logits(texts()[:1])
    assert (own.softmax(0) - expected[0].softmax(0)).abs().max() > 1e-3, "nothing was adapted"
    tree = TreeNextToken(model, budget=1 << 30, pass_tokens=64)
    for one, other in zip(expected, tree.logits(texts()), strict=True):
        assert (one.softmax(0) - other.softmax(0)).abs().max() <= 1e-5
