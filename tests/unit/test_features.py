"""Hashed n-grams: what makes two texts alike, and what does not."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from langchain_safeguard.embedded.features import buckets

BITS = 16


def shared(left: str, right: str) -> float:
    """Share of the buckets of the shorter list that both have."""
    a, b = set(buckets(left, None, BITS)[0]), set(buckets(right, None, BITS)[0])
    return len(a & b) / min(len(a), len(b))


@given(st.text(max_size=80), st.none() | st.text(max_size=40))
def test_buckets_are_distinct_in_range_and_weighted(text: str, prompt: str | None) -> None:
    found, weights = buckets(text, prompt, BITS)
    assert len(found) == len(weights) == len(set(found.tolist()))
    assert all(0 <= bucket < 2**BITS for bucket in found.tolist())
    assert np.all(weights >= 1.0)


def test_case_and_white_space_do_not_matter() -> None:
    left, right = buckets("Hello  big\nWORLD", None, BITS), buckets("hello big world", None, BITS)
    assert np.array_equal(left[0], right[0])
    assert np.array_equal(left[1], right[1])


def test_like_texts_share_more_than_unlike_ones() -> None:
    near = shared("how do I bake bread", "how do I bake a cake")
    far = shared("how do I bake bread", "kimchi costs 90 zł")
    assert near > far + 0.2


def test_a_phrase_keeps_its_features_wherever_it_stands() -> None:
    assert shared("bake bread", "please, could you bake bread for us all?") > 0.8


def test_the_prompt_is_not_the_text() -> None:
    as_text, _ = buckets("bake bread", None, BITS)
    with_prompt, _ = buckets("ok", "bake bread", BITS)
    plain, _ = buckets("ok", None, BITS)
    fresh = set(with_prompt.tolist()) - set(plain.tolist())
    assert fresh
    assert len(fresh & set(as_text.tolist())) <= 1  # chance only


def test_repetition_weighs_more_but_not_in_proportion() -> None:
    once, many = buckets("bread", None, BITS), buckets("bread " * 20, None, BITS)
    assert 1.0 < many[1].max() < 20.0
    assert once[1].max() < many[1].max()
