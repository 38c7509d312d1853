"""Telling that memory ran out from other errors."""

from __future__ import annotations

import torch


def out_of_memory(error: Exception) -> bool:
    """Tell whether an error of torch says that memory ran out, on whatever device."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
