"""Lists of the likeliest tokens: the truth is always within the bounds that are worked out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_safeguard import GuardOutputError
from langchain_safeguard.engines.answers import Fork
from langchain_safeguard.engines.remote.bounds import Listing, decided

Entries = tuple[tuple[frozenset[int], float], ...]


def truth(fork: Fork, logits: Sequence[float]) -> dict[str, float]:
    by_label: dict[str, float] = {}
    for tokens, lead in fork.options:
        assert isinstance(lead, str)
        by_label[lead] = by_label.get(lead, 0.0) + sum(math.exp(logits[each]) for each in tokens)
    total = sum(by_label.values())
    return {label: value / total for label, value in by_label.items()}


def normal(logits: Sequence[float]) -> list[float]:
    total = math.log(math.fsum(map(math.exp, logits)))
    return [each - total for each in logits]


def listing(logits: Sequence[float], most: int, names: Sequence[str]) -> Listing:
    """List the likeliest tokens by name; as in a JSON object, the last one of a name stays."""
    best = sorted(range(len(logits)), key=lambda each: -logits[each])[:most]
    shown = {names[each]: logits[each] for each in best}
    meant = {
        name: frozenset(each for each in range(len(names)) if names[each] == name) for name in shown
    }
    return Listing(tuple((meant[name], value) for name, value in shown.items()), complete=False)


FORK = Fork((), (((0, 1), "safe"), ((2,), "unsafe"), ((3,), "unsafe"), ((4,), "other")))


@given(
    st.lists(st.floats(-30, 10), min_size=8, max_size=40),
    st.integers(1, 20),
    st.lists(st.sampled_from("abcdefgh"), min_size=40, max_size=40),
    st.booleans(),
)
def test_what_is_decided_is_near_the_truth(
    logits: list[float], most: int, letters: list[str], share_names: bool
) -> None:
    names = letters if share_names else [*map(str, range(40))]
    known = normal(logits)
    try:
        found = decided(FORK, {FORK: listing(known, most, names[: len(known)])})
    except GuardOutputError:
        return
    expected = truth(FORK, known)
    assert sum(found.values()) == pytest.approx(1)
    for label, value in expected.items():
        assert found[label] == pytest.approx(value, abs=0.021)


@given(st.lists(st.floats(-30, 10), min_size=8, max_size=40))
def test_selected_tokens_are_exact(logits: list[float]) -> None:
    known = normal(logits)
    entries = tuple((frozenset({each}), known[each]) for each in range(5))
    found = decided(FORK, {FORK: Listing(entries, complete=True)})
    for label, value in truth(FORK, known).items():
        assert found[label] == pytest.approx(value, abs=1e-6)


def test_a_likely_word_decides_though_the_others_are_not_listed() -> None:
    known = normal([12.0, -3, -3, -3, -3, 0, 0, 0, 0])
    found = decided(FORK, {FORK: listing(known, 3, [*map(str, range(9))])})
    assert found["safe"] > 0.98


def test_words_that_may_matter_and_are_not_listed_decide_nothing() -> None:
    known = normal([1.0, 0, 1.0, 0, 0, 5, 5, 5])
    with pytest.raises(GuardOutputError, match="not among the likeliest"):
        decided(FORK, {FORK: listing(known, 3, [*map(str, range(8))])})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.5])
@pytest.mark.parametrize("complete", [True, False])
def test_what_is_no_log_probability_is_refused(value: float, complete: bool) -> None:
    with pytest.raises(GuardOutputError, match="log-probabilities are none"):
        Listing(((frozenset({0}), -0.1), (frozenset({1}), value)), complete)
