"""Prompts as tokens: those of the joined text, except that users cannot write control tokens."""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from langchain_safeguard.engines import Piece
from langchain_safeguard.engines.tokens import PromptTokenizer
from langchain_safeguard.errors import GuardError
from tests.tokenizers import NAMES, tokenizer

_WRITTEN = [
    "Human: ",
    "Agent: yes\n\n",
    " ",
    "\n",
    "  \t",
    "\u2581",
    "<",
    "|",
    "</",
    "a1,2",
    "집에서 사제 폭탄",
    "مرحبا",
    "🙂👩‍👩‍👧",
    "\u200b",
    "e\u0301",
    "\x00",
    "{{ user }}",
]
_MARKS = [
    "<s>",
    "</s>",
    "<unk>",
    "[INST]",
    "[/INST]",
    "<bos>",
    "<eos>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<|begin_of_text|>",
    "<|eot_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|reserved_special_token_0|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
]


@cache
def real(name: str) -> tuple[Any, PromptTokenizer]:
    return tokenizer(name), PromptTokenizer(tokenizer(name))


def special(name: str) -> set[int]:
    return {id_ for id_, token in real(name)[0].added_tokens_decoder.items() if token.special}


def split(text: str, places: list[int]) -> list[str]:
    """Cut a text at some places."""
    at = sorted({place % (len(text) + 1) for place in places})
    return [text[begin:end] for begin, end in zip([0, *at], [*at, len(text)], strict=True)]


def decoded(name: str, ids: list[int]) -> str:
    """Return the text of tokens."""
    plain = real(name)[0]
    text: str = plain.decode(ids, clean_up_tokenization_spaces=False)
    return seen(text.removeprefix(plain.bos_token) if plain.bos_token_id in ids[:1] else text)


def seen(text: str) -> str:
    """Return a text without what some vocabularies do not tell apart: spaces in front, accents."""
    return unicodedata.normalize("NFC", text.replace("\u2581", " ")).lstrip(" ")


harmless = st.lists(st.one_of(st.sampled_from(_WRITTEN), st.text(max_size=8)), max_size=8).map(
    "".join
)
hostile = st.lists(st.sampled_from([*_WRITTEN, *_MARKS]), min_size=1, max_size=8).map("".join)
places = st.lists(st.integers(0, 200), max_size=4)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=80, deadline=None)
@given(text=harmless, at=places, trusted=st.lists(st.booleans(), min_size=5, max_size=5))
# Gemma writes both as the same token.
@example(text="\u2581\u2581Human:  ", at=[], trusted=[True] * 5)
def test_without_control_tokens_they_are_those_of_the_joined_text(
    name: str, text: str, at: list[int], trusted: list[bool]
) -> None:
    plain, ours = real(name)
    pieces = [Piece(part, ok) for part, ok in zip(split(text, at), trusted, strict=False)]
    joined = "".join(piece.text for piece in pieces)
    expected = plain(joined)["input_ids"]
    begun = len(plain("")["input_ids"])
    if any(id_ in special(name) for id_ in expected[begun:]):
        return  # found by chance
    assert ours.encode(pieces) == expected


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=150, deadline=None)
@given(
    text=hostile,
    at=places,
    before=st.sampled_from(["", "Policy.\n", "Human: <", "Human: </", "x<|", "["]),
    after=st.sampled_from(["", "\nVerdict:", ">", "|>", "]", "s>", "/s>"]),
)
def test_what_users_write_never_becomes_a_control_token(
    name: str, text: str, at: list[int], before: str, after: str
) -> None:
    plain, ours = real(name)
    written = [Piece(part, trusted=False) for part in split(text, at)]
    ids = ours.encode([Piece(before), *written, Piece(after)])
    begin = ids[:1] if ids[:1] == [plain.bos_token_id] else []
    assert not special(name) & set(ids[len(begin) :])
    assert decoded(name, ids) == seen(before + text + after)


@pytest.mark.parametrize("name", NAMES)
def test_a_control_token_of_the_guard_is_one_token_and_the_same_of_a_user_is_letters(
    name: str,
) -> None:
    plain, ours = real(name)
    first, last = Piece("Human: "), Piece(" Agent:")
    begins = plain("a")["input_ids"][:1]
    for id_ in special(name):
        mark = plain.convert_ids_to_tokens(id_)
        by_guard = ours.encode([first, Piece(mark), last])
        by_user = ours.encode([first, Piece(mark, trusted=False), last])
        both = ours.encode([first, Piece(mark), Piece(mark, trusted=False), last])
        begin = begins.count(id_)
        assert by_guard.count(id_) == both.count(id_) == begin + 1, mark
        assert by_user.count(id_) == begin, mark


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([("Human: <", True), ("/s", False), (">", True)], 0),
        ([("Human: <", True), ("/", False), ("s>", True)], 0),
        ([("Human: ", True), ("</", False), ("s>", True)], 0),
        ([("<", False), ("/s>", True)], 0),
        ([("</s", True), (">", False)], 0),
        ([("<</s>/s>", False)], 0),
        ([("</s</s>>", False)], 0),
        ([("</s></s>", False), ("</s>", True)], 1),
        ([("</s>", True), ("", False), ("</s>", True)], 2),
        ([("</", True), ("s>", True)], 1),
        ([("<", True), ("/s", True), (">", True), ("</s>", False)], 1),
    ],
)
def test_control_tokens_across_the_borders_of_pieces(
    pieces: list[tuple[str, bool]], expected: int
) -> None:
    plain, ours = real("llama2")
    ids = ours.encode([Piece(text, trusted) for text, trusted in pieces])
    assert ids.count(plain.eos_token_id) == expected
    assert ids[0] == plain.bos_token_id
    assert ids.count(plain.bos_token_id) == 1


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("qwen")])
@pytest.mark.parametrize("written", [True, False])
def test_exactly_one_token_for_the_beginning(name: str, written: bool) -> None:
    """Whether the template writes it or not."""
    plain, ours = real(name)
    begins = plain("a")["input_ids"][0] == plain.bos_token_id
    text = Piece(f"{plain.bos_token}Policy." if written else "Policy.")
    ids = ours.encode([text, Piece(plain.bos_token, trusted=False), Piece("\n")])
    assert ids.count(plain.bos_token_id) == int(begins or written)
    if begins or written:
        assert ids[0] == plain.bos_token_id


def test_added_words_that_the_guard_does_not_use_are_ordinary_text() -> None:
    plain, ours = real("gemma2")
    text = "<h1>a</h1>\n\n<table>"
    assert (
        ours.encode([Piece("Text: "), Piece(text, trusted=False)])
        == (plain("Text: " + text)["input_ids"])
    )
    marked = ours.encode([Piece("<h1>"), Piece("<h1>", trusted=False), Piece("\n")])
    assert marked.count(plain.convert_tokens_to_ids("<h1>")) == 1


def small(*special_tokens: str, normalizer: normalizers.Normalizer | None = None) -> Any:
    """A tokenizer of letters with control tokens of its own."""
    letters = {chr(code): code - 32 for code in range(32, 127)}
    made = Tokenizer(models.BPE(vocab={**letters, "?": 31}, merges=[], unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    if normalizer is not None:
        made.normalizer = normalizer
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token=special_tokens[0], unk_token="?"
    )
    fast.add_special_tokens({"additional_special_tokens": [*special_tokens[1:]]})
    return fast


def test_a_control_token_of_one_letter_cannot_be_cut_so_the_prompt_is_refused() -> None:
    ours = PromptTokenizer(small("</s>", "~"))
    assert ours.encode([Piece("a~"), Piece("b", trusted=False)])
    with pytest.raises(GuardError, match="control tokens"):
        ours.encode([Piece("a~"), Piece("b~", trusted=False)])


def test_what_the_vocabulary_lacks_is_not_a_control_token() -> None:
    plain = small("</s>")
    ids = PromptTokenizer(plain).encode([Piece("a"), Piece("\u20ac", trusted=False), Piece("b")])
    assert ids == plain("a\u20acb")["input_ids"]
    assert plain.unk_token_id in ids


def test_control_tokens_that_the_normaliser_makes_are_refused() -> None:
    plain = small("</s>", normalizer=normalizers.NFKC())
    from tokenizers import AddedToken

    plain.add_tokens([AddedToken("<end>", special=True, normalized=True)], special_tokens=True)
    ours = PromptTokenizer(plain)
    wide = "\uff1cend\uff1e"
    made = plain.convert_tokens_to_ids("<end>")
    assert made in plain(wide)["input_ids"]
    with pytest.raises(GuardError, match="control tokens") as caught:
        ours.encode([Piece("a"), Piece(wide, trusted=False), Piece("b")])
    assert "end" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(text=harmless, choice=st.sampled_from(["safe", " safe", "unsafe\n", "S1", ",", "\n\n"]))
def test_what_follows_adds_tokens_and_changes_none(name: str, text: str, choice: str) -> None:
    plain, ours = real(name)
    found = ours.after(text, choice)
    whole = plain(text + choice, add_special_tokens=False)["input_ids"]
    if found is not None:
        assert found
        assert plain(text, add_special_tokens=False)["input_ids"] + found == whole


def test_what_melts_into_one_token_does_not_follow() -> None:
    _, ours = real("llama3")
    assert ours.after("un", "safe") is None
    assert ours.after("verdict: ", "safe") is None
    assert ours.after("verdict:", " safe") is not None


def test_what_the_vocabulary_lacks_does_not_follow() -> None:
    ours = PromptTokenizer(small("</s>"))
    assert ours.after("a", "b") is not None
    assert ours.after("a", "\u20ac") is None


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(text=harmless)
def test_offsets_go_through_the_text(name: str, text: str) -> None:
    _, ours = real(name)
    found = ours.offsets(text)
    assert all(0 <= begin <= end <= len(text) for begin, end in found)
    assert found == sorted(found)


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("llama2", "</s>"),
        ("llama3", "<|eot_id|>"),
        ("gemma2", "<end_of_turn>"),
        ("qwen2", "<|im_end|>"),
        ("mistral", "</s>"),
    ],
)
def test_endings(name: str, ending: str) -> None:
    plain, ours = real(name)
    assert plain.convert_tokens_to_ids(ending) in ours.eos
    assert plain.unk_token_id not in ours.eos
    assert None not in ours.eos
