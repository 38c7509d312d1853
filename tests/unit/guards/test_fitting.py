"""Long texts in windows: all is read, none is longer than the model reads, the worst wins."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_safeguard import Category, Conversation, Finding, GuardOutputError, Verdict
from langchain_safeguard.conversation import Turn
from langchain_safeguard.guards.windows import Window, fit, riskiest

POLICY = 20
AROUND = 2
"""A made-up guard: its policy has 20 tokens, and each turn two besides its words."""


def words(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in re.finditer(r"\S+", text)]


def measure(conversation: Conversation) -> int:
    return POLICY + sum(AROUND + len(words(turn.text)) for turn in conversation.turns)


def windows(turns: Sequence[Turn], limit: int) -> list[Window]:
    return fit(Conversation(tuple(turns)), "output", measure=measure, offsets=words, limit=limit)


def numbered(count: int, start: int = 0) -> str:
    return " ".join(f"w{number}" for number in range(start, start + count))


@given(length=st.integers(1, 600), asked=st.integers(0, 90), limit=st.integers(70, 200))
def test_every_word_is_read_and_no_window_is_too_long(length: int, asked: int, limit: int) -> None:
    text = numbered(length)
    found = windows([Turn("user", numbered(asked, 5000)), Turn("assistant", text)], limit)
    read = {word for window in found for word in window.conversation.turns[-1].text.split()}
    assert read == set(text.split())
    assert all(measure(window.conversation) <= limit for window in found)
    assert all(window.conversation.turns[-1].role == "assistant" for window in found)


@given(length=st.integers(160, 600), limit=st.integers(70, 150))
def test_windows_overlap_and_name_their_characters(length: int, limit: int) -> None:
    text = numbered(length)
    found = windows([Turn("assistant", text)], limit)
    assert len(found) > 1
    for one, other in pairwise(found):
        assert one.start < other.start < (one.end or 0) < (other.end or 0)
    for window in found:
        assert window.conversation.turns[-1].text == text[window.start : window.end]


@given(turns=st.lists(st.integers(1, 60), min_size=1, max_size=8), limit=st.integers(80, 160))
def test_the_oldest_turns_are_left_out_first(turns: list[int], limit: int) -> None:
    roles = ("user", "assistant")
    context = [Turn(roles[at % 2], numbered(n, 100 * at)) for at, n in enumerate(turns)]
    judged = Turn("assistant", "fine")
    if context[-1].role == "assistant":
        context.append(Turn("user", "and now?"))
    [window] = windows([*context, judged], limit)
    kept = window.conversation.turns
    assert kept[-1] == judged
    assert list(kept[:-1]) == context[window.dropped :]
    if window.dropped:
        more = Conversation((context[window.dropped - 1], *kept))
        assert measure(more) > limit


def test_a_short_conversation_is_left_as_it_is() -> None:
    conversation = Conversation((Turn("user", "Hi"), Turn("assistant", "Hello")))
    assert fit(conversation, "output", measure=measure, offsets=words, limit=100) == [
        Window(conversation)
    ]


def test_a_policy_that_leaves_no_room_still_reads_the_text_in_pieces() -> None:
    found = windows([Turn("assistant", numbered(200))], limit=POLICY)
    read = {word for window in found for word in window.conversation.turns[-1].text.split()}
    assert len(read) == 200


@given(runs=st.lists(st.integers(1, 120), min_size=2, max_size=8))
def test_what_is_longer_in_a_prompt_makes_no_window_small(runs: list[int]) -> None:
    # Each `#` is read as five tokens, as control tokens are whose letters are spelled out.
    def spelled_out(conversation: Conversation) -> int:
        return measure(conversation) + sum(4 * turn.text.count("#") for turn in conversation.turns)

    text = " ".join(" ".join("w#"[at % 2] * count) for at, count in enumerate([100, *runs]))
    room = 100
    limit = POLICY + AROUND + room
    found = fit(Conversation.of(text), "input", measure=spelled_out, offsets=words, limit=limit)
    lengths = [spelled_out(window.conversation) for window in found]
    assert max(lengths) <= limit
    # Each but the last is at least half full, and they overlap by an eighth.
    total = spelled_out(Conversation.of(text))
    assert len(found) <= total // (room // 2 - room // 8) + 2
    assert found[-1].end in (len(text), None)
    for one, other in pairwise(found):
        assert other.start <= (one.end or 0)


def test_an_empty_text_is_one_window_whatever_the_policy() -> None:
    assert len(windows([Turn("assistant", "")], limit=POLICY)) == 1


def verdict(score: float | None, code: str, *, failed: bool = False) -> Verdict:
    finding = Finding(Category.HATE, score, code)
    return Verdict("guard", findings=(finding,), score=score, failed=failed, tokens=10)


def parts(*verdicts: Verdict) -> list[tuple[Window, Verdict]]:
    conversation = Conversation((Turn("user", "x"),))
    return [
        (Window(conversation, 10 * at, 10 * at + 12, dropped=1), each)
        for at, each in enumerate(verdicts)
    ]


def test_the_riskiest_window_decides() -> None:
    found = riskiest(parts(verdict(0.1, "S1"), verdict(0.9, "S2"), verdict(0.3, "S1")))
    assert found.score == 0.9
    assert [(f.code, f.score) for f in found.findings] == [("S2", 0.9), ("S1", 0.3)]
    assert [(s.start, s.end, s.score) for s in found.spans][1] == (10, 22, 0.9)
    assert (found.tokens, found.dropped_turns) == (30, 1)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_window_that_could_not_be_read_makes_the_verdict_a_failed_one(place: int) -> None:
    verdicts = [verdict(0.1, "S1"), verdict(0.2, "S2")]
    verdicts.insert(place, verdict(None, "S3", failed=True))
    found = riskiest(parts(*verdicts))
    assert found.failed
    assert {f.code for f in found.findings} == {"S1", "S2", "S3"}


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_score_that_is_no_number_is_not_lost_among_others(place: int) -> None:
    verdicts = [verdict(0.1, "S1"), verdict(0.2, "S1")]
    verdicts.insert(place, verdict(math.nan, "S1"))
    with pytest.raises(GuardOutputError, match="not a number"):
        riskiest(parts(*verdicts))


def test_a_finding_without_a_score_outranks_those_with_one() -> None:
    sure = replace(verdict(None, "S1"), explanation="It is.")
    found = riskiest(parts(verdict(0.4, "S1"), sure))
    assert [(f.code, f.score) for f in found.findings] == [("S1", None)]
    assert (found.score, found.explanation) == (None, "It is.")
    assert [span.score for span in found.spans] == [0.4, 1.0]
