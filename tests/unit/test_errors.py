"""Errors survive a copy, and the way from a worker process."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from langchain_safeguard import (
    ConfigurationError,
    ContentBlockedError,
    MissingExtraError,
    PolicyError,
    Safeguard,
    SafeguardError,
)
from tests.word_guard import WordGuard

ERRORS: dict[str, SafeguardError] = {
    "blocked": ContentBlockedError(Safeguard(WordGuard(), audit=None).check("bomb")),
    "extra": MissingExtraError("httpx", "remote"),
    "policy": PolicyError("unknown key", path="p.yaml", line=3),
    "configuration": ConfigurationError("timeout='5'"),
}


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
@pytest.mark.parametrize(
    "way", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))]
)
def test_a_copy_says_and_knows_the_same(error: SafeguardError, way: Any) -> None:
    error.add_note("while checking a batch")
    twin = way(error)
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    assert twin.args == error.args
    assert twin.__dict__ == error.__dict__
