"""What runs a model: prompts in, completions out. Engines know nothing of safety."""

from langchain_safeguard.engines.base import Completion, Engine, Prompt
from langchain_safeguard.engines.batching import MicroBatcher

__all__ = ["Completion", "Engine", "MicroBatcher", "Prompt"]
