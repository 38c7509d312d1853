"""Where labels part in a vocabulary, and what becomes of their probabilities."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_safeguard.engines import Reading
from langchain_safeguard.engines.answers import Fork, Stage, plan
from langchain_safeguard.engines.tokens import PromptTokenizer
from langchain_safeguard.errors import GuardLoadError
from tests.tokenizers import tokenizer

VERDICT = Reading("verdict", {"safe": ("safe", " safe"), "unsafe": ("unsafe", " unsafe")})


@cache
def real(name: str) -> Any:
    return tokenizer(name)


@cache
def words(name: str) -> PromptTokenizer:
    return PromptTokenizer(real(name))


def codes(*names: str) -> Reading:
    return Reading("hazard", {name: (name,) for name in names})


def paths(stage: Stage, name: str) -> dict[str, list[tuple[int, ...]]]:
    """From each label to the tokens that lead to it, from the beginning of the answer."""
    [fork] = [fork for found, fork in stage.readings if found == name]
    labels: dict[str, list[tuple[int, ...]]] = {}

    def walk(fork: Fork) -> None:
        for tokens, lead in fork.options:
            if isinstance(lead, str):
                labels.setdefault(lead, []).extend((*fork.path, token) for token in tokens)
            else:
                walk(lead)

    walk(fork)
    return labels


def spelled(name: str, before: str, text: str) -> tuple[int, ...]:
    """The tokens of a text after another one, all of it tokenised at once."""
    plain = real(name)
    count = len(plain(before, add_special_tokens=False)["input_ids"])
    return tuple(plain(before + text, add_special_tokens=False)["input_ids"][count:])


@pytest.mark.parametrize(
    ("name", "before"),
    [
        ("llama2", "provide your verdict. [/INST]"),
        ("llama3", "<|end_header_id|>\n\n"),
        ("gemma2", "Answer:"),
        ("qwen3", "assistant\n"),
    ],
)
def test_a_verdict_is_read_at_its_first_token(name: str, before: str) -> None:
    stage = plan(words(name), before, [VERDICT])
    found = paths(stage, "verdict")
    assert stage.forced == ()
    for label in ("safe", "unsafe"):
        for text in (label, f" {label}"):
            if ids := words(name).after(before, text):
                assert (ids[0],) in found[label]
    assert not set(found["safe"]) & set(found["unsafe"])


def test_what_is_forced_stands_before_what_is_read() -> None:
    before = "<|end_header_id|>"
    parts = ["\n\n", VERDICT, "unsafe\n", codes("S1", "S2")]
    stage = plan(words("llama3"), before, parts)
    assert stage.text == "\n\nunsafe\n"
    assert stage.forced == spelled("llama3", before, "\n\nunsafe\n")
    found = paths(stage, "hazard")
    for code in ("S1", "S2"):
        assert found[code] == [spelled("llama3", before, f"\n\nunsafe\n{code}")]
    assert paths(stage, "verdict")["unsafe"][0][:1] == spelled("llama3", before, "\n\n")


@pytest.mark.parametrize("letter", ["O", "S"])
@pytest.mark.parametrize(
    ("name", "before"), [("llama2", "[/INST] unsafe\n"), ("llama3", "\n\nunsafe\n")]
)
def test_codes_that_begin_others(name: str, before: str, letter: str) -> None:
    """Where digits are tokens, `O1` ends or a list goes on, or it becomes `O13`."""
    names = [f"{letter}{number}" for number in range(1, 15)]
    found = paths(plan(words(name), before, [codes(*names)]), "hazard")
    assert set(found) == set(names)
    whole = {code: spelled(name, before, code) for code in names}
    for code in names:
        longer = [
            other
            for other in names
            if other != code and whole[other][: len(whole[code])] == whole[code]
        ]
        if not longer:
            assert found[code] == [whole[code]]
            continue
        [comma] = words(name).after("1", ",") or []
        ends = {*words(name).eos, comma}
        assert {path[-1] for path in found[code]} == ends
        assert {path[:-1] for path in found[code]} == {whole[code]}
    assert any(len(path) > 2 for path in found[f"{letter}13"]) == (name == "llama2")


@st.composite
def sure(draw: st.DrawFn) -> list[float]:
    weights = draw(st.lists(st.floats(0.01, 1), min_size=24, max_size=24))
    return weights


@pytest.mark.parametrize("name", ["llama2", "llama3"])
@settings(max_examples=60, deadline=None)
@given(numbers=st.sets(st.integers(1, 40), min_size=2, max_size=12), weights=sure())
def test_probabilities_add_up(name: str, numbers: set[int], weights: list[float]) -> None:
    """Whatever is found at the forks: each label has the product along its way, summed."""
    names = [f"S{number}" for number in sorted(numbers)]
    stage = plan(words(name), "\nunsafe\n", [codes(*names)])
    [(_, fork)] = stage.readings
    found_at = {}
    for place, each in enumerate(fork.all()):
        row = [weights[(place + at) % len(weights)] for at in range(len(each.choices))]
        found_at[each] = [value / sum(row) for value in row]
    probabilities = fork.probabilities(found_at)
    assert set(probabilities) == set(names)
    assert math.isclose(sum(probabilities.values()), 1, rel_tol=1e-9)
    assert all(0 < value < 1 for value in probabilities.values())


def test_the_probabilities_of_a_labels_spellings_are_added() -> None:
    fork = plan(words("llama3"), "\n\n", [VERDICT]).readings[0][1]
    label_of = {
        token: lead for tokens, lead in fork.options for token in tokens if isinstance(lead, str)
    }
    assert len(label_of) == 4
    probabilities = fork.probabilities({fork: [0.1, 0.2, 0.3, 0.4]})
    for label in ("safe", "unsafe"):
        expected = sum(
            value
            for token, value in zip(fork.choices, [0.1, 0.2, 0.3, 0.4], strict=True)
            if label_of[token] == label
        )
        assert math.isclose(probabilities[label], expected)


def test_spellings_that_share_their_first_token_part_later() -> None:
    reading = Reading("answer", {"good": ("good morning",), "bad": ("good night",)})
    found = paths(plan(words("llama3"), ":\n", [reading]), "answer")
    assert found["good"] == [spelled("llama3", ":\n", "good morning")]
    assert found["bad"] == [spelled("llama3", ":\n", "good night")]


@pytest.mark.parametrize(
    "choices",
    [
        {"yes": ("Yes",), "sure": ("Yes",)},
        {"yes": ("Yes",), "sure": ("Yes",), "more": ("Yes indeed",)},
        {"yes": ("Yes",)},
    ],
)
def test_labels_that_cannot_be_told_apart_are_an_error(
    choices: dict[str, tuple[str, ...]],
) -> None:
    with pytest.raises(GuardLoadError, match="cannot tell"):
        plan(words("llama3"), ":\n", [Reading("answer", choices)])


def test_a_label_without_tokens_is_an_error() -> None:
    reading = Reading("answer", {"safe": ("safe",), "unsafe": (" unsafe",)})
    with pytest.raises(GuardLoadError, match=r"no tokens for 'safe' .*is this the model"):
        plan(words("llama3"), "verdict: ", [reading])


def test_a_label_needs_only_one_spelling_with_tokens() -> None:
    reading = Reading("answer", {"safe": ("safe", "fine"), "unsafe": ("unsafe", "dire")})
    assert set(paths(plan(words("llama3"), "un", [reading]), "answer")) == {"safe", "unsafe"}


def test_a_forced_text_without_tokens_is_an_error() -> None:
    with pytest.raises(GuardLoadError, match="no tokens of its own for 'safe'"):
        plan(words("llama3"), "un", ["safe"])
