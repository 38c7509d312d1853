"""Windows cover every token, and every short span is whole in one of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_safeguard.embedded.orders import stretches
from langchain_safeguard.embedded.windows import Window, sentences, spans, windows

sizes = st.integers(1, 40).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size - 1)))


@given(st.integers(0, 400), sizes)
def test_every_token_is_in_a_window(count: int, shape: tuple[int, int]) -> None:
    covered = {place for first, last in spans(count, *shape) for place in range(first, last)}
    assert covered == set(range(count))


@given(st.integers(1, 400), sizes, st.data())
def test_every_span_up_to_the_overlap_is_whole_in_a_window(
    count: int, shape: tuple[int, int], data: st.DataObject
) -> None:
    size, overlap = shape
    length = data.draw(st.integers(0, min(overlap, count)))
    start = data.draw(st.integers(0, count - length))
    found = spans(count, size, overlap)
    assert any(first <= start and start + length <= last for first, last in found)


@given(st.integers(0, 400), sizes)
def test_windows_are_no_longer_than_asked_and_in_order(count: int, shape: tuple[int, int]) -> None:
    size, _ = shape
    found = spans(count, size, shape[1])
    assert all(0 < last - first <= size for first, last in found)
    assert found == sorted(set(found))


@given(st.integers(41, 400), sizes)
def test_windows_of_a_long_text_are_full(count: int, shape: tuple[int, int]) -> None:
    assert {last - first for first, last in spans(count, *shape)} == {shape[0]}


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 3)), max_size=60), sizes)
def test_windows_cover_every_character(
    words: list[tuple[int, int]], shape: tuple[int, int]
) -> None:
    offsets, place = [], 0
    for length, gap in words:
        offsets.append((place, place + length))
        place += length + gap
    found = windows(offsets, place, *shape)
    covered = {at for window in found for at in range(window.start, window.end)}
    assert covered == set(range(place))


def test_a_short_text_is_one_window() -> None:
    assert windows([(0, 2), (3, 5)], 6, size=8, overlap=2) == [Window(0, 2, 0, 6)]


def test_no_tokens_no_windows() -> None:
    assert windows([], 3, size=8, overlap=2) == []


@pytest.mark.parametrize("overlap", [-1, 8, 9])
def test_an_overlap_outside_the_window_is_refused(overlap: int) -> None:
    with pytest.raises(ValueError, match="overlap must be at least 0 and less than size"):
        spans(10, 8, overlap)


def _letters(text: str) -> list[tuple[int, int]]:
    """Every character that is not blank is a token of its own."""
    return [(place, place + 1) for place, letter in enumerate(text) if not letter.isspace()]


def test_sentences_are_cut_at_their_ends_and_at_lines() -> None:
    text = "One two. Three?! (Four.) five\nsix"
    found = sentences(text, _letters(text), 1, 20)
    assert [text[window.start : window.end] for window in found] == [
        "One two. ",
        "Three?! ",
        "(Four.) ",
        "five\n",
        "six",
    ]


def test_too_short_and_too_long_sentences_are_left_out() -> None:
    text = "Ab. Abcdef. Abcdefghijk."
    found = sentences(text, _letters(text), 5, 8)
    assert [text[window.start : window.end] for window in found] == ["Abcdef. "]


@given(st.text("ab .!\n가", max_size=80))
def test_sentences_share_nothing_and_leave_nothing_out(text: str) -> None:
    found = sentences(text, _letters(text), 1, len(text))
    covered = [place for window in found for place in range(window.first, window.last)]
    assert covered == list(range(len(_letters(text))))


@given(st.lists(st.sampled_from(["word ", "word. ", "word\n", "wordword "]), max_size=150))
def test_every_character_of_a_result_is_in_a_stretch(words: list[str]) -> None:
    text, offsets, at = "".join(words), [], 0
    for word in words:
        offsets.append((at, at + len(word.rstrip())))
        at += len(word)
    found = stretches(text, offsets)
    reached = {place for line in found for place in range(line.start, line.end)}
    assert reached == set(range(len(text)))
    assert all(line.last - line.first <= 64 for line in found)
