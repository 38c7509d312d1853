"""One file per family of guard models: how to ask it, how to read it, what it can report."""

from langchain_safeguard.guards.base import Guard, ModelGuard
from langchain_safeguard.guards.card import GuardCard
from langchain_safeguard.guards.family import ClassifierFamily, Family, LanguageFamily
from langchain_safeguard.guards.sequence_classifier import SequenceClassifier
from langchain_safeguard.guards.word_verdict import WordVerdict

__all__ = [
    "ClassifierFamily",
    "Family",
    "Guard",
    "GuardCard",
    "LanguageFamily",
    "ModelGuard",
    "SequenceClassifier",
    "WordVerdict",
]
