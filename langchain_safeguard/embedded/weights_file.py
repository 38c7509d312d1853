"""One safetensors file for the whole guard: packing, unpacking and checking it.

Matrices are stored as int8 with one scale a row (`NAME.q`, `NAME.scale`) and restored to float32 on
loading; vectors stay float32. The header carries a checksum of everything behind it, because a
guard with damaged weights would go on answering, only wrongly.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor

from langchain_safeguard.errors import GuardLoadError

FORMAT = "langchain-safeguard-embedded-1"

_PACK_FROM = 4096
"""Tensors with fewer numbers are not worth packing."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What a weight file holds: float tensors, packed tensors left packed, settings, checksum."""

    tensors: dict[str, Tensor]
    settings: dict[str, int | float | str]
    checksum: str


def packed(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise to int8 with a scale for each row (first axis): same shape, and (rows,) float32."""
    rows = weight.detach().float().flatten(1)
    scale = rows.abs().amax(1).clamp(min=1e-12) / 127.0
    values = (rows / scale[:, None]).round().clamp(-127, 127).to(torch.int8)
    return values.view(weight.shape), scale


def unpacked(values: Tensor, scale: Tensor) -> Tensor:
    """Undo `packed`."""
    return values.float() * scale.view(-1, *[1] * (values.dim() - 1))


def write_weights(
    path: Path, tensors: dict[str, Tensor], settings: dict[str, int | float | str]
) -> str:
    """Write the file and return its checksum (sha256 of all tensor bytes, hexadecimal)."""
    stored: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.dim() > 1 and tensor.numel() >= _PACK_FROM and tensor.dtype == torch.float32:
            stored[f"{name}.q"], stored[f"{name}.scale"] = packed(tensor)
        else:
            stored[name] = tensor.detach().contiguous()
    checksum = _checksum(save(stored))
    metadata = {"format": FORMAT, "checksum": checksum, "settings": json.dumps(settings)}
    path.write_bytes(save(stored, metadata=metadata))
    return checksum


def read_weights(path: Path) -> Weights:
    """Read and check the file.

    Raises:
        GuardLoadError: It is missing, cut short, altered, or not a file of this format.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _broken(path, f"can't be read ({error.strerror or 'no such file'})") from error
    try:
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length])["__metadata__"]
        settings = json.loads(metadata["settings"])
        if metadata["format"] != FORMAT:
            raise _broken(path, f"has format {metadata['format']!r}, expected {FORMAT!r}")
        expected = metadata["checksum"]
    except (ValueError, KeyError, TypeError) as error:
        raise _broken(path, "has no readable header, it is cut short or another file") from error
    if _checksum(data) != expected:
        raise _broken(path, "does not match its own checksum, it is cut short or altered")
    return Weights(load(data), settings, expected)


def restore(
    tensors: dict[str, Tensor], keep_packed: frozenset[str] = frozenset()
) -> dict[str, Tensor]:
    """Unpack all matrices to float32 except those named in `keep_packed`."""
    restored: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        base = name.removesuffix(".q")
        if base in keep_packed or name.removesuffix(".scale") in keep_packed:
            restored[name] = tensor
        elif base != name:
            restored[base] = unpacked(tensor, tensors[f"{base}.scale"])
        elif f"{name.removesuffix('.scale')}.q" not in tensors:
            restored[name] = tensor
    return restored


def _checksum(data: bytes) -> str:
    """sha256 of what follows the safetensors header."""
    start = 8 + int.from_bytes(data[:8], "little")
    return hashlib.sha256(memoryview(data)[start:]).hexdigest()


def _broken(path: Path, what: str) -> GuardLoadError:
    msg = (
        f"The embedded guard's weight file {path} {what}. "
        "Reinstall langchain-safeguard to repair it, or pass a folder with intact weights."
    )
    return GuardLoadError(msg)
