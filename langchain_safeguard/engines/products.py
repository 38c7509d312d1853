"""Matrix products in float32 on a CPU, by whichever library is faster there.

PyTorch asks MKL, which does not use the wide registers of processors that are not Intel's. oneDNN,
which PyTorch brings along, does: on an AMD EPYC it takes half the time, gives the same numbers up
to rounding, and reads the weights where they are.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch.nn import functional

_LEAST_ROWS = 4
"""With fewer rows a product is bound by memory, and MKL's way is the shorter one."""
_GAIN = 1.2
"""How many times faster oneDNN must be to be taken."""


def product(
    rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Return `rows @ weight.T + bias` for matrices in float32 on the CPU."""
    if rows.shape[-2] >= _LEAST_ROWS and onednn_is_faster():
        return _onednn(rows, weight, bias)
    return functional.linear(rows, weight, bias)


class HastenedLinear(torch.nn.Linear):
    """A linear layer that uses the faster library where it can."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the product with the weights."""
        plain = (
            rows.dtype == self.weight.dtype == torch.float32
            and rows.device.type == "cpu"
            and rows.dim() > 1
            and not torch.is_grad_enabled()
        )
        apply = product if plain else functional.linear
        return apply(rows, self.weight, self.bias)


def hasten(model: torch.nn.Module) -> None:
    """Let the linear layers of a model use the faster library, where they can."""
    # Subclasses, and layers that somebody else has changed, compute something else.
    layers = [
        layer
        for layer in model.modules()
        if type(layer) is torch.nn.Linear
        and "forward" not in vars(layer)
        and layer.weight.dtype == torch.float32
        and layer.weight.device.type == "cpu"
    ]
    if not layers or not onednn_is_faster():
        return
    for layer in layers:
        # Not a function put in place of its method: that would hold the layer, and the layer it.
        layer.__class__ = HastenedLinear


def _onednn(
    rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    ops: Any = torch.ops.mkldnn
    found: torch.Tensor = ops._linear_pointwise(rows, weight, bias, "none", [], "")
    return found


@lru_cache(maxsize=1)
def onednn_is_faster() -> bool:
    """Tell whether oneDNN is there and faster than MKL; measured once, in some milliseconds."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(96, 512, generator=generator)
    weight = torch.randn(1024, 512, generator=generator)
    with torch.inference_mode():
        try:
            same = torch.allclose(
                _onednn(rows, weight), functional.linear(rows, weight), rtol=1e-4, atol=1e-3
            )
        except (AttributeError, RuntimeError):
            # The operator is PyTorch's own business; it may go.
            return False
        # Turn by turn, so that whatever else the machine does meets both.
        taken = [
            (_seconds(functional.linear, rows, weight), _seconds(_onednn, rows, weight))
            for _ in range(8)
        ]
    mkl, onednn = (min(column) for column in zip(*taken, strict=True))
    return same and mkl > _GAIN * onednn


def _seconds(
    compute: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    rows: torch.Tensor,
    weight: torch.Tensor,
) -> float:
    begin = time.perf_counter()
    compute(rows, weight)
    return time.perf_counter() - begin
