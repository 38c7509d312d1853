"""Planted guards: tiny models of the real kinds that know a few trigger words.

Each reads the prompt of a real guard, rendered by the family of that guard, with a real tokenizer.
It says `unsafe`, with the right code, when a trigger word stands in the checked turn, and `safe`
when it stands in the policy, in an earlier turn, or in the other role's words. Each is trained
within half a minute, once: the checkpoints are kept in the cache.
"""

from tests.planted.checkpoints import adapter, awq, checkpoint
from tests.planted.recipes import RECIPES, Recipe

__all__ = ["RECIPES", "Recipe", "adapter", "awq", "checkpoint"]
