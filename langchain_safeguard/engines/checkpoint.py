"""What a checkpoint's folder says of itself, read without loading weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

from langchain_safeguard.errors import GuardLoadError

_BYTES = {"F64": 8, "F32": 4, "I64": 8, "I32": 4, "F16": 2, "BF16": 2, "I16": 2}


@dataclass(frozen=True)
class Checkpoint:
    """A folder in transformers' or peft's format.

    Attributes:
        folder: The folder.
    """

    folder: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """Return `config.json`; empty for an adapter."""
        return self._json("config.json")

    @cached_property
    def adapter(self) -> dict[str, Any]:
        """Return `adapter_config.json`; empty where there is none."""
        return self._json("adapter_config.json")

    @cached_property
    def template(self) -> str | None:
        """Return the chat template, from wherever transformers keeps it."""
        path = self.folder / "chat_template.jinja"
        if path.is_file():
            return _text(path)
        for name in ("tokenizer_config.json", "chat_template.json"):
            found = self._json(name).get("chat_template")
            if isinstance(found, list):
                # Several by name: the default one is what a guard uses.
                found = {each["name"]: each["template"] for each in found}.get("default")
            if isinstance(found, str):
                return found
        return None

    @property
    def revision(self) -> str | None:
        """Return the commit, where the folder is a snapshot of the hub's cache."""
        parent = self.folder.parent.name
        return self.folder.name if parent == "snapshots" else None

    @property
    def has_tokenizer(self) -> bool:
        """Tell whether a tokenizer is in it."""
        names = ("tokenizer.json", "tokenizer.model", "vocab.txt", "spm.model", "vocab.json")
        return any((self.folder / name).is_file() for name in names)

    @property
    def is_classifier(self) -> bool:
        """Tell whether it has a classification head."""
        kinds = self.config.get("architectures") or [""]
        return str(kinds[0]).endswith("ForSequenceClassification")

    @property
    def labels(self) -> tuple[str, ...]:
        """Return a classifier's labels, in their order."""
        names = self.config.get("id2label") or {}
        return tuple(str(names[key]) for key in sorted(names, key=int))

    @property
    def positions(self) -> int | None:
        """Return the most tokens that the model reads at once, where its config says so."""
        config = self.config.get("text_config") or self.config
        # Llama 4 attends within chunks of positions; inside one chunk nothing of that shows.
        found = [config.get(key) for key in ("max_position_embeddings", "attention_chunk_size")]
        return min((each for each in found if type(each) is int), default=None)

    @property
    def quantized_by(self) -> str | None:
        """Return how its weights are quantised, such as `"awq"`."""
        found = self.config.get("quantization_config") or {}
        if not isinstance(found, dict):
            raise GuardLoadError(f"{self.folder}: quantization_config={found!r} is no mapping")
        method = found.get("quant_method")
        return None if method is None else str(method)

    def weights(self) -> dict[str, Any]:
        """Return what its safetensors files say of each tensor: dtype and shape.

        Raises:
            GuardLoadError: There are no safetensors weights, or they are cut short, or one of
                several files is missing.
        """
        paths = sorted(self.folder.glob("*.safetensors"))
        if not paths:
            raise GuardLoadError(
                f"{self.folder} has no *.safetensors; weights in other formats are not loaded, "
                "since they can hold code"
            )
        named = self._json("model.safetensors.index.json").get("weight_map") or {}
        there = {path.name for path in paths}
        lacking = sorted({*named.values()} - there)
        if lacking and "model.safetensors" not in there:
            raise GuardLoadError(
                f"{self.folder} lacks {len(lacking)} of its files, {lacking[0]} among them; fetch "
                "it again"
            )
        found: dict[str, Any] = {}
        for path in paths:
            found |= _header(path)
        return found

    def parameters(self) -> tuple[int, int]:
        """Return how many numbers its weights have, and how many bytes they take as stored.

        Raises:
            GuardLoadError: As `weights`.
        """
        numbers = size = 0
        for tensor in self.weights().values():
            count = prod(tensor["shape"])
            numbers += count
            size += count * _BYTES.get(tensor["dtype"], 1)
        return numbers, size

    def _json(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        if not path.is_file():
            return {}
        try:
            found = json.loads(_text(path))
        except ValueError as error:
            raise GuardLoadError(f"{path} is damaged: it is not JSON") from error
        return found if isinstance(found, dict) else {}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise GuardLoadError(f"{path} is damaged: it is not UTF-8") from error


def _header(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header: dict[str, Any] = json.loads(file.read(min(length, path.stat().st_size)))
            end = max((each["data_offsets"][1] for key, each in header.items() if key[0] != "_"))
        except (ValueError, KeyError, TypeError) as error:
            raise GuardLoadError(f"{path} is damaged: it is not a safetensors file") from error
    if path.stat().st_size < 8 + length + end:
        raise GuardLoadError(f"{path} is damaged: it is cut short")
    return {key: each for key, each in header.items() if key != "__metadata__"}
