"""Weights in 4 bits, laid out as AutoAWQ's GEMM version lays them out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

_GROUP = 64
"""How many weights of a row share a scale."""
_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of eight neighbouring outputs stands in which four bits of a number."""


def pack(plain: Path, folder: Path) -> None:
    """Quantise a checkpoint: all linear layers but the head, as AutoAWQ does."""
    shutil.copytree(plain, folder, dirs_exist_ok=True)
    weights = load_file(plain / "model.safetensors")
    packed: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        if name.endswith("_proj.weight"):
            layer = name.removesuffix("weight")
            packed |= {f"{layer}{part}": each for part, each in _quantized(weight.float()).items()}
        else:
            packed[name] = weight.to(torch.float16)
    save_file(packed, folder / "model.safetensors", metadata={"format": "pt"})
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["dtype"] = "float16"
    config["quantization_config"] = {
        "quant_method": "awq",
        "version": "gemm",
        "bits": 4,
        "group_size": _GROUP,
        "zero_point": True,
        "modules_to_not_convert": None,
    }
    path.write_text(json.dumps(config, indent=2), encoding="utf-8")


def _quantized(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return what stands for a weight of (outputs, inputs)."""
    outputs, inputs = weight.shape
    groups = weight.T.reshape(inputs // _GROUP, _GROUP, outputs)
    low, high = groups.amin(1).clamp(max=0), groups.amax(1).clamp(min=0)
    scales = ((high - low).clamp(min=1e-5) / 15).half()
    zeros = (-low / scales.float()).round().clamp(0, 15)
    steps = (groups / scales.float()[:, None] + zeros[:, None]).round().clamp(0, 15)
    return {
        "qweight": _packed(steps.reshape(inputs, outputs)),
        "qzeros": _packed(zeros),
        "scales": scales.contiguous(),
    }


def _packed(numbers: torch.Tensor) -> torch.Tensor:
    """Put eight numbers of 4 bits into one of 32."""
    eight = numbers.to(torch.int64).reshape(numbers.shape[0], -1, 8)
    shifts = torch.arange(8) * 4
    whole = (eight[:, :, list(_ORDER)] << shifts).sum(-1)
    # As signed numbers, which is what the format has.
    return torch.where(whole >= 1 << 31, whole - (1 << 32), whole).to(torch.int32)
