"""One file per family of guard models: how to ask it, how to read it, what it can report."""

from langchain_safeguard.guards.base import Guard, ModelGuard

__all__ = ["Guard", "ModelGuard"]
