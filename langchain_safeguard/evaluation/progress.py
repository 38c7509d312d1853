"""A progress bar on standard error, or none."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any


def progress_bar(total: int, unit: str, *, shown: bool) -> Any:
    """Return a context manager around a bar with tqdm's `update` and `set_description_str`.

    Args:
        total: How many units there are to do.
        unit: What they are.
        shown: Whether it is seen.
    """
    if not shown:
        return nullcontext(_NoBar())
    # transformers, which this package needs, brings it; the import takes a moment.
    from tqdm import tqdm  # type: ignore[import-untyped]

    return tqdm(total=total, unit=unit, leave=False)


class _NoBar:
    """Stands in for the progress bar."""

    def update(self, count: int) -> None:
        """Do nothing."""

    def set_description_str(self, name: str) -> None:
        """Do nothing."""
