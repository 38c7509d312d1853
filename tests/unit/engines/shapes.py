"""Tiny language models in the shapes of real ones, with large random weights."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
import transformers as t

WORDS = 300
WINDOW = 8
_SHAPE: dict[str, Any] = {
    "vocab_size": WORDS,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_SIZED = {**_SHAPE, "head_dim": 16}
_MIXED = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}

_TREE: dict[str, Callable[[], Any]] = {
    "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**_SIZED)),
    "mistral": lambda: t.MistralForCausalLM(t.MistralConfig(**_SIZED, sliding_window=WINDOW)),
    "gemma2": lambda: t.Gemma2ForCausalLM(
        t.Gemma2Config(
            **_SIZED,
            sliding_window=WINDOW,
            query_pre_attn_scalar=16,
            final_logit_softcapping=3.0,
            attn_logit_softcapping=2.0,
        )
    ),
    "gemma3": lambda: t.Gemma3ForCausalLM(
        t.Gemma3TextConfig(**_SIZED, **_MIXED, sliding_window=WINDOW, query_pre_attn_scalar=16)
    ),
    "qwen2": lambda: t.Qwen2ForCausalLM(t.Qwen2Config(**_SHAPE)),
    "qwen2 windows": lambda: t.Qwen2ForCausalLM(
        t.Qwen2Config(**_SHAPE, **_MIXED, use_sliding_window=True, sliding_window=WINDOW)
    ),
    "qwen3": lambda: t.Qwen3ForCausalLM(t.Qwen3Config(**_SIZED)),
    "granite": lambda: t.GraniteForCausalLM(
        t.GraniteConfig(
            **_SHAPE,
            logits_scaling=3.0,
            attention_multiplier=0.3,
            residual_multiplier=0.5,
            embedding_multiplier=2.0,
        )
    ),
    "gpt-oss": lambda: t.GptOssForCausalLM(
        t.GptOssConfig(
            **_SIZED,
            **_MIXED,
            num_local_experts=4,
            num_experts_per_tok=2,
            sliding_window=WINDOW,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        )
    ),
    "llama4": lambda: t.Llama4ForCausalLM(
        t.Llama4TextConfig(
            **_SIZED,
            num_local_experts=2,
            interleave_moe_layer_step=2,
            intermediate_size_mlp=128,
            attention_chunk_size=16,
            no_rope_layers=[1, 0, 1],
        )
    ),
    "phi3": lambda: t.Phi3ForCausalLM(t.Phi3Config(**_SHAPE, sliding_window=WINDOW)),
    "cohere": lambda: t.CohereForCausalLM(t.CohereConfig(**_SHAPE, logit_scale=0.5)),
    "gpt2": lambda: t.GPT2LMHeadModel(
        t.GPT2Config(
            vocab_size=WORDS,
            n_embd=64,
            n_layer=2,
            n_head=4,
            n_positions=512,
            bos_token_id=1,
            eos_token_id=2,
        )
    ),
}
_PLAIN: dict[str, Callable[[], Any]] = {
    # Its distances to earlier words are part of its own attention code.
    "bloom": lambda: t.BloomForCausalLM(
        t.BloomConfig(vocab_size=WORDS, hidden_size=64, n_layer=2, n_head=4)
    ),
    # These carry a state along the row: what stands beside a text would leak into it.
    "mamba": lambda: t.MambaForCausalLM(
        t.MambaConfig(vocab_size=WORDS, hidden_size=64, num_hidden_layers=2)
    ),
    "granite hybrid": lambda: t.GraniteMoeHybridForCausalLM(
        t.GraniteMoeHybridConfig(
            **{**_SHAPE, "num_hidden_layers": 2},
            layer_types=["mamba", "attention"],
            num_local_experts=0,
            shared_intermediate_size=64,
            mamba_n_heads=8,
            mamba_d_head=16,
            mamba_d_state=8,
        )
    ),
}
TREE_SHAPES = tuple(_TREE)
"""Shapes that a token tree reads."""
PLAIN_SHAPES = tuple(_PLAIN)
"""Shapes that it cannot read."""


def tiny(shape: str, seed: int = 0, vocabulary: int = WORDS) -> Any:
    """Return a model of a shape; always the same one."""
    torch.manual_seed(seed)
    model = {**_TREE, **_PLAIN}[shape]().eval()
    if vocabulary != WORDS:
        model.resize_token_embeddings(vocabulary, mean_resizing=False)
    for name, weight in model.named_parameters():
        # Large numbers, so that what a token sees shows in what comes next.
        if weight.dim() > 1 and "A_log" not in name and "conv" not in name:
            torch.nn.init.normal_(weight, std=0.2)
    return model


def words(count: int, seed: int) -> list[int]:
    """Return some tokens."""
    rng = random.Random(seed)
    return [rng.randrange(3, WORDS) for _ in range(count)]
