"""One file per family of guard models: how to ask it, how to read it, what it can report."""

from langchain_safeguard.guards.base import Guard, ModelGuard
from langchain_safeguard.guards.card import GuardCard
from langchain_safeguard.guards.family import ClassifierFamily, Family, LanguageFamily

__all__ = ["ClassifierFamily", "Family", "Guard", "GuardCard", "LanguageFamily", "ModelGuard"]
