"""Planted guards: tiny models of the real kinds that know a few trigger words.

Each reads the prompt of a real guard, rendered by the family of that guard, with a real tokenizer.
It says `unsafe`, with the right code, when a trigger word stands in the checked turn, and `safe`
when it stands in the policy, in an earlier turn, or in the other role's words. Each is trained
within half a minute, once: the checkpoints are kept in the cache.
"""

import os
from collections.abc import Iterable
from typing import Any

import pytest

from tests.planted.checkpoints import adapter, awq, checkpoint
from tests.planted.recipes import RECIPES, Recipe

__all__ = ["RECIPES", "Recipe", "adapter", "awq", "checkpoint", "each", "only_if_wanted"]

_ALWAYS = ("llama-guard-1", "ko-safeguard")

only_if_wanted = pytest.mark.skipif(
    os.environ.get("SAFEGUARD_PLANTED") != "all",
    reason="it takes a minute or more to train: set SAFEGUARD_PLANTED=all",
)


def each(names: Iterable[str]) -> list[Any]:
    """Return what to parametrize a test with: the first guards always, others if asked for."""
    return [
        name if name in _ALWAYS else pytest.param(name, marks=only_if_wanted)
        for name in names
        if name != "safety-llama"
    ]
