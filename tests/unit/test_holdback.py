"""The stream window: nothing unchecked is shown, nothing is lost, forbidden phrases stay whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_safeguard.streaming.holdback import HoldBack, units

LETTERS = st.text(alphabet="ab .가나\n", max_size=12)
CHUNKS = st.lists(LETTERS, max_size=40)
EVERY = st.integers(1, 12)
OVERLAP = st.one_of(st.none(), st.integers(0, 8))


class Shown:
    """Runs a checker over a stream as a guard would, and notes what got out when."""

    def __init__(self, chunks: list[str], window: HoldBack[str], forbidden: str | None) -> None:
        self.shown: list[str] = []
        self.checks: list[str] = []
        self.blocked = False
        text = ""
        for chunk in chunks:
            text += chunk
            if window.push(chunk, chunk):
                if self._unsafe(text, forbidden):
                    return
                self.shown += window.passed()
                assert self.checks[-1].startswith("".join(self.shown))
        if not self._unsafe(text, forbidden):
            self.shown += window.finished()

    def _unsafe(self, text: str, forbidden: str | None) -> bool:
        self.checks.append(text)
        self.blocked = forbidden is not None and forbidden in text
        return self.blocked


@given(CHUNKS, EVERY, OVERLAP)
def test_a_safe_stream_comes_out_whole_and_in_order(
    chunks: list[str], every: int, overlap: int | None
) -> None:
    run = Shown(chunks, HoldBack(every=every, overlap=overlap), None)
    assert run.shown == chunks
    assert run.checks[-1] == "".join(chunks)


@given(
    CHUNKS, EVERY, st.integers(1, 8), st.text(alphabet="xyz쟁", min_size=1, max_size=8), st.data()
)
def test_a_phrase_within_the_overlap_is_never_even_half_shown(
    chunks: list[str], every: int, overlap: int, phrase: str, data: st.DataObject
) -> None:
    if units(phrase) > 4 * overlap:
        phrase = phrase[:overlap]  # a character is at most one token
    text = "".join(chunks)
    at = data.draw(st.integers(0, len(text)))
    whole = text[:at] + phrase + text[at:]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=30)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    run = Shown(pieces, HoldBack(every=every, overlap=overlap), phrase)
    assert run.blocked
    assert len("".join(run.shown)) <= at
    assert whole.startswith("".join(run.shown))


@given(CHUNKS, EVERY, OVERLAP, st.integers(0, 40))
def test_a_sealed_chunk_and_all_behind_it_wait_for_the_end(
    chunks: list[str], every: int, overlap: int | None, at: int
) -> None:
    window = HoldBack[str](every=every, overlap=overlap)
    shown: list[str] = []
    for number, chunk in enumerate(chunks):
        if window.push(chunk, chunk, seal=number == at):
            shown += window.passed()
    assert len(shown) <= at
    assert shown + window.finished() == chunks


def test_a_check_is_due_after_so_many_tokens_in_english_and_in_korean() -> None:
    english = HoldBack[str](every=32)
    assert [english.push("word", "word") for _ in range(32)].index(True) == 31
    korean = HoldBack[str](every=32)
    due = [korean.push("한", "한") for _ in range(60)].index(True)
    assert 32 <= due + 1 <= 64


def test_a_sentence_end_makes_a_check_due_earlier() -> None:
    window = HoldBack[str](every=32)
    assert not window.push("Hi. ", "Hi. ")
    assert not window.push("a" * 95, "a" * 95)
    assert window.push("b. ", "b. ")
    assert window.passed() == ["Hi. "]


def test_a_check_at_a_sentence_end_always_releases_something_when_chunks_are_small() -> None:
    window = HoldBack[str](every=8, overlap=7)
    for letter in "a" * 31:
        assert not window.push(letter, letter)
    assert window.push(".", ".")
    assert window.passed() == ["a"] * 4


def test_chunks_are_returned_as_they_came() -> None:
    marker = object()
    window = HoldBack[object](every=1, overlap=0)
    assert window.push(marker, "text")
    assert window.passed() == [marker]
    assert window.passed() == []
    assert window.finished() == []


@pytest.mark.parametrize(("every", "overlap"), [(0, None), (-1, 0), (1, -1)])
def test_impossible_windows_are_refused(every: int, overlap: int | None) -> None:
    with pytest.raises(ValueError, match="allowed"):
        HoldBack(every=every, overlap=overlap)
