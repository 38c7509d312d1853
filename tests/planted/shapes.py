"""Tiny transformers of the real kinds."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig, MistralConfig, Qwen3Config

COUNTED_AT = 2
"""After how many layers a token should know in which turn it stands."""
_SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 4096,
    "initializer_range": 0.08,
    "tie_word_embeddings": False,
}
_KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "llama": (LlamaConfig, {}),
    "mistral": (MistralConfig, {"sliding_window": 4096}),
    "gemma2": (Gemma2Config, {"query_pre_attn_scalar": 32, "tie_word_embeddings": True}),
    "qwen3": (Qwen3Config, {"tie_word_embeddings": True}),
}


def make_model(kind: str, vocabulary: int, **special: int | None) -> Any:
    """Make a model with random weights."""
    config, more = _KINDS[kind]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        config(vocab_size=vocabulary, **{**_SHAPE, **more}, **special)
    )
    for name, weight in model.named_parameters():
        # With norms of size 1, so small a head could not single a word out of a long prompt.
        if name.endswith(("q_norm.weight", "k_norm.weight")):
            torch.nn.init.constant_(weight, 1.4)
    return model
