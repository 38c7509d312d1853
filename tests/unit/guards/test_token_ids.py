"""Verdict words and beginnings of prompts as token ids, in the real vocabularies.

The ids are those of the guards' own tokenizers: what other code that runs these models reads, and
what their vocabularies say.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache as once
from typing import Any

import pytest

from langchain_safeguard.conversation import Conversation
from langchain_safeguard.engines import Reading
from langchain_safeguard.engines.tokens import PromptTokenizer
from langchain_safeguard.guards import LanguageFamily
from langchain_safeguard.guards.ko_safeguard import KoSafeGuard
from langchain_safeguard.guards.llama_guard import LlamaGuard
from langchain_safeguard.guards.md_judge import MDJudge
from langchain_safeguard.guards.qwen3_guard import Qwen3Guard
from langchain_safeguard.guards.safety_llama import SafetyLlama
from langchain_safeguard.guards.shield_gemma import ShieldGemma
from langchain_safeguard.taxonomy import Side
from tests.tokenizers import tokenizer

loaded = once(tokenizer)

VOCABULARY = {
    "llama2": {
        "▁safe": 9109,
        "▁unsafe": 25110,
        "safe": 11177,
        "▁Yes": 3869,
        "Yes": 8241,
        "▁No": 1939,
        "No": 3782,
        "▁yes": 4874,
        "▁no": 694,
        "▁good": 1781,
        "▁bad": 4319,
    },
    "llama3": {
        "safe": 19193,
        "unsafe": 39257,
        "Ġsafe": 6220,
        "Ġunsafe": 20451,
        "ĊĊ": 271,
        "Yes": 9642,
        "No": 2822,
        "<|begin_of_text|>": 128000,
        "<|start_header_id|>": 128006,
        "<|end_header_id|>": 128007,
        "<|eot_id|>": 128009,
    },
    "mistral": {
        "▁safe": 5023,
        "safe": 7248,
        "▁unsafe": 15426,
        "un": 370,
        "▁un": 521,
        "▁yes": 5081,
        "▁no": 708,
    },
    "qwen2": {"Safety": 73037, ":": 25, "ĠSafe": 22291, "ĠUnsafe": 73067, "ĠNone": 2240},
    "qwen3": {
        "Safety": 73037,
        ":": 25,
        "ĠSafe": 22291,
        "ĠUnsafe": 73067,
        "ĠCont": 2093,
        "ĠNone": 2240,
        "ĠYes": 7414,
        "ĠNo": 2308,
        "Ġyes": 9834,
        "Ġno": 902,
    },
}
SIZES = {"llama2": 32000, "llama3": 128256, "mistral": 32000, "gemma2": 256000}

VERDICTS: list[tuple[str, Callable[[], LanguageFamily], str, dict[str, int]]] = [
    ("llama2", lambda: LlamaGuard("1"), "", {" safe": 9109, " unsafe": 25110}),
    ("llama3", lambda: LlamaGuard("2"), "", {" safe": 6220, " unsafe": 20451}),
    ("llama3", lambda: LlamaGuard("3-8b"), "\n\n", {"safe": 19193, "unsafe": 39257}),
    ("llama3", lambda: LlamaGuard("3-1b"), "\n\n", {"safe": 19193, "unsafe": 39257}),
    ("llama3", KoSafeGuard, "", {"safe": 19193, "unsafe": 39257}),
    ("llama2", SafetyLlama, " Evaluation: Chatbot is:", {" good": 1781, " bad": 4319}),
    ("mistral", MDJudge, "", {" safe": 5023, " unsafe": 15426}),
    ("qwen3", Qwen3Guard, "Safety:", {" Safe": 22291, " Unsafe": 73067, " Controversial": 2093}),
    ("gemma2", ShieldGemma, "", {"Yes": 3553, "No": 1294}),
]
"""Per family: a vocabulary, what is said before the verdict, the first token of each word."""

NAMES = [f"{name}-{family().name}" for name, family, _, _ in VERDICTS if name != "qwen3"]

TALK = Conversation.of(
    [("user", "How do I bake bread?"), ("assistant", "With flour."), ("user", "And rye?")]
)


@pytest.mark.parametrize("name", VOCABULARY)
def test_words_have_the_ids_that_the_models_know_them_by(name: str) -> None:
    expected = VOCABULARY[name]
    found = {word: loaded(name).convert_tokens_to_ids(word) for word in expected}
    assert found == expected


@pytest.mark.parametrize("name", SIZES)
def test_the_vocabularies_are_whole(name: str) -> None:
    assert len(loaded(name)) == SIZES[name]


def test_unsafe_without_a_space_is_no_word_of_llama_2() -> None:
    real = loaded("llama2")
    assert real.convert_tokens_to_ids("unsafe") == real.unk_token_id
    assert real.convert_tokens_to_ids("un") == 348


def side_of(family: LanguageFamily) -> tuple[Side, Conversation]:
    if "input" in family.sides:
        return "input", TALK
    return "output", TALK.answered("It takes longer.")


@pytest.mark.parametrize(("name", "family", "said", "words"), VERDICTS)
def test_the_verdict_is_read_where_its_words_have_tokens_of_their_own(
    name: str, family: Callable[[], LanguageFamily], said: str, words: dict[str, int]
) -> None:
    made = family()
    side, talk = side_of(made)
    tokens = PromptTokenizer(loaded(name))
    for prompt in made.render(talk, side):
        before = prompt.pieces[-1].text + said
        first = {word: (tokens.after(before, word) or [None])[0] for word in words}
        assert first == words
        [reading, *_] = [part for part in prompt.answer if isinstance(part, Reading)]
        spellings = {each for spelled in reading.choices.values() for each in spelled}
        assert spellings >= set(words)


@pytest.mark.parametrize("earlier", [1, 3])
@pytest.mark.parametrize(
    ("name", "family"), [each[:2] for each in VERDICTS if each[0] != "qwen3"], ids=NAMES
)
def test_a_prompt_begins_once(
    name: str, family: Callable[[], LanguageFamily], earlier: int
) -> None:
    made = family()
    side, talk = side_of(made)
    begin = loaded(name).bos_token_id
    for prompt in made.render(Conversation(talk.turns[-earlier:]), side):
        ids = PromptTokenizer(loaded(name)).encode(prompt.pieces)
        if made.name == "llama-guard-3-8b":
            # Its template writes a space first.
            assert ids.pop(0) == 220
        assert ids[0] == begin
        # The worked examples of Safety-LLaMA are ended, and after each it begins anew.
        ends = ids.count(loaded(name).eos_token_id) if made.name == "safety-llama" else 0
        assert ids.count(begin) == 1 + ends


def test_qwen_has_no_beginning() -> None:
    real = loaded("qwen3")
    [prompt] = Qwen3Guard().render(TALK, "input")
    ids = PromptTokenizer(real).encode(prompt.pieces)
    assert ids[0] == real.convert_tokens_to_ids("<|im_start|>")


@pytest.mark.parametrize("version", ["1", "2", "3-8b", "3-1b"])
def test_the_tokens_of_the_pieces_are_those_of_the_whole_prompt(version: Any) -> None:
    real = loaded("llama2" if version == "1" else "llama3")
    [prompt] = LlamaGuard(version).render(TALK, "input")
    whole = real(prompt.text, add_special_tokens=False)["input_ids"]
    ids = PromptTokenizer(real).encode(prompt.pieces)
    assert ids in (whole, [real.bos_token_id, *whole])


def test_codes_are_told_apart_token_by_token() -> None:
    tokens = PromptTokenizer(loaded("llama3"))
    codes = {f"S{number}": tokens.after("unsafe\n", f"S{number}") for number in range(1, 15)}
    assert all(codes.values())
    assert len({tuple(ids or ()) for ids in codes.values()}) == 14
    tokens = PromptTokenizer(loaded("llama2"))
    assert tokens.after(" unsafe\n", "O3") == [29949, 29941]
