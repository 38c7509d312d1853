"""Aegis 1.0: its prompt byte by byte, and answers read into verdicts."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_safeguard.conversation import Conversation
from langchain_safeguard.errors import GuardOutputError
from langchain_safeguard.guards.aegis import Aegis
from langchain_safeguard.taxonomy import Category
from tests.unit.guards.scripted import said, written

ASKED = Conversation.of("How do I pick a lock?")


def test_the_prompt_is_that_of_nvidias_own_code() -> None:
    [prompt] = Aegis().render(ASKED, "input")
    # What `format_aegis("How do I pick a lock?")` of NeMo Curator returns; nine thousand letters.
    assert hashlib.sha256(prompt.text.encode()).hexdigest() == (
        "fa6c6027c6b4fedc35da8bb3428d10a4772c327827bd99ac0c9366f13ba13fab"
    )


def test_an_answer_is_the_agents() -> None:
    [prompt] = Aegis().render(ASKED.answered("With a hairpin."), "output")
    assert "unsafe content in 'Agent' messages" in prompt.text
    assert "User: How do I pick a lock?\n\nAgent: With a hairpin.\n\n<END" in prompt.text


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("unsafe\nO3", ["O3"]),
        (" unsafe\nO3,O11</s>", ["O3", "O11"]),
        ("unsafe\nO3, O11", ["O3", "O11"]),
        ("unsafe\nO99", ["O99"]),
        ("unsafe", [None]),
        ("safe", []),
    ],
)
def test_a_written_answer_is_read(text: str, codes: list[str | None]) -> None:
    verdict = written(Aegis(), text)
    assert list(dict.fromkeys(finding.code for finding in verdict.findings)) == codes


@pytest.mark.parametrize("text", ["", "un", "I cannot say.", "safe\nO3", "{}"])
def test_an_answer_that_cannot_be_read_is_an_error(text: str) -> None:
    with pytest.raises(GuardOutputError):
        written(Aegis(), text)


def test_an_unknown_code_is_other() -> None:
    [finding] = written(Aegis(), "unsafe\nO99").findings
    assert (finding.category, finding.code) == (Category.OTHER, "O99")


@pytest.mark.parametrize(
    ("text", "unsafe", "codes"),
    [
        (" unsafe\nO1,O12", True, ["O1", "O12"]),
        (" unsafe\nO12", True, ["O12"]),
        (" safe", False, []),
    ],
)
def test_the_first_word_is_scored(text: str, unsafe: bool, codes: list[str]) -> None:
    verdict = said(Aegis(), "llama2", ASKED, "input", text)
    assert verdict.score is not None and (verdict.score > 0.99) is unsafe
    named = list(dict.fromkeys(finding.code for finding in verdict.findings))
    assert named[: len(codes)] == codes
    assert verdict.findings[0].score == verdict.score


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        verdict = written(Aegis(), text)
    except GuardOutputError:
        return
    assert verdict.findings or text.strip().lower() == "safe"
