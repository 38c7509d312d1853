"""Guarded tools: what a model asks of them is checked, and what they bring back."""

from langchain_safeguard.tools.guarded_tool import GuardedTool, guard_tool

__all__ = ["GuardedTool", "guard_tool"]
