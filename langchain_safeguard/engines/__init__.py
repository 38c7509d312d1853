"""What runs a model: questions in, answers out. Engines know nothing of safety."""

from langchain_safeguard.engines.base import (
    Completion,
    Engine,
    Piece,
    Prompt,
    Reading,
    Stretch,
    TextInput,
    TextScores,
    Writing,
)
from langchain_safeguard.engines.batching import MicroBatcher

__all__ = [
    "Completion",
    "Engine",
    "MicroBatcher",
    "Piece",
    "Prompt",
    "Reading",
    "Stretch",
    "TextInput",
    "TextScores",
    "Writing",
]
