"""Drafts judge a text that still grows: without acts, records, or asking twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from langchain_safeguard import Action, Decision, Policy, Rule, Safeguard, UnreadableInputError
from tests.word_guard import FaultyGuard, WordGuard

Draft = Callable[[Safeguard, Any], Decision]
WAYS: dict[str, Draft] = {
    "draft": lambda safeguard, text: safeguard.draft(text),
    "adraft": lambda safeguard, text: asyncio.run(safeguard.adraft(text)),
}


@pytest.fixture(params=WAYS)
def draft(request: pytest.FixtureRequest) -> Draft:
    return WAYS[request.param]


@pytest.mark.parametrize("action", ["flag", "rewrite", "escalate", "block"])
def test_a_draft_says_what_is_to_be_done_and_does_none_of_it(draft: Draft, action: str) -> None:
    done: list[Any] = []
    rule = Rule(["hate"], action, rewrite=done.append if action == "rewrite" else None)
    safeguard = Safeguard(
        WordGuard(), Policy(rules=(rule,)), handlers=[done.append], audit=done.append
    )
    decision = draft(safeguard, "hate")
    assert decision.action is Action.of(action)
    assert (decision.side, done) == ("output", [])


def test_a_check_with_the_verdicts_of_a_draft_acts_without_asking_again(draft: Draft) -> None:
    guard, records = WordGuard(), []
    safeguard = Safeguard(guard, audit=records.append)
    drafted = draft(safeguard, "hate")
    decision = safeguard.check("hate", side="output", verdicts=drafted.verdicts)
    later = asyncio.run(safeguard.acheck("hate", side="output", verdicts=drafted.verdicts))
    assert decision == later == drafted
    assert len(guard.seen) == 1
    assert [record["action"] for record in records] == ["block", "block"]


def test_a_draft_of_a_guard_that_fails_follows_the_policy(draft: Draft) -> None:
    def fail() -> Any:
        raise RuntimeError

    assert draft(Safeguard(FaultyGuard(fail)), "fine").rule == "on_failure"


def test_a_draft_of_what_cannot_be_read_is_an_error(draft: Draft) -> None:
    with pytest.raises(UnreadableInputError):
        draft(Safeguard(WordGuard()), object())
