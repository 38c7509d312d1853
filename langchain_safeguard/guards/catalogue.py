"""All guard models that are known by name, a line per family."""

from __future__ import annotations

from langchain_safeguard.guards import llama_guard
from langchain_safeguard.guards.card import GuardCard

CARDS: tuple[GuardCard, ...] = (*llama_guard.CARDS,)
