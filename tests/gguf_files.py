"""Checkpoints of the Llama kind as files of llama.cpp."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_ORDINARY, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6


def write_gguf(folder: Path, path: Path) -> Path:
    """Write a checkpoint with the vocabulary of Llama 2 in full precision; return the path."""
    from gguf import GGUFWriter

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    _add_vocabulary(writer, folder, config)
    _add_weights(writer, folder, config)
    _finish(writer)
    return path


def _add_vocabulary(writer: Any, folder: Path, config: dict[str, Any]) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    ids = tokenizer["model"]["vocab"]
    tokens = sorted(ids, key=ids.__getitem__)
    control = {each["content"] for each in tokenizer["added_tokens"] if each["special"]}
    kinds = []
    for token in tokens:
        if token == tokenizer["model"]["unk_token"]:
            kinds.append(_UNKNOWN)
        elif token in control:
            kinds.append(_CONTROL)
        else:
            kinds.append(_BYTE if token.startswith("<0x") else _ORDINARY)
    words = kinds.index(_ORDINARY)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    # In this vocabulary a merge that was learned later is worth less by one.
    writer.add_token_scores([float(min(0, words - place)) for place in range(len(tokens))])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)


def _add_weights(writer: Any, folder: Path, config: dict[str, Any]) -> None:
    from gguf import MODEL_ARCH, get_tensor_name_map
    from safetensors.torch import load_file

    names = get_tensor_name_map(MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    heads = {
        "q_proj.weight": config["num_attention_heads"],
        "k_proj.weight": config["num_key_value_heads"],
    }
    for name, weight in load_file(folder / "model.safetensors").items():
        values = weight.float()
        for ending, count in heads.items():
            if name.endswith(ending):
                # Rotary positions turn neighbours there, and halves of a head here.
                halves = values.reshape(count, 2, -1, values.shape[1])
                values = halves.transpose(1, 2).reshape(values.shape)
        called = names.get_name(name, try_suffixes=(".weight",))
        assert called is not None, name
        writer.add_tensor(called, values.contiguous().numpy())


def dequantised(source: Path, path: Path) -> Path:
    """Write a file of llama.cpp again, with its weights in full precision; return the path."""
    from gguf import GGUFReader, GGUFValueType, GGUFWriter
    from gguf.quants import dequantize

    reader = GGUFReader(source)
    fields = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    writer = GGUFWriter(path, fields.pop("general.architecture").contents())
    for name, field in fields.items():
        kind, inner = field.types[0], field.types[-1]
        inside = inner if kind == GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, sub_type=inside)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, dequantize(tensor.data, tensor.tensor_type))
    _finish(writer)
    return path


def _finish(writer: Any) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
