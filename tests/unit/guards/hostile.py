"""What the tests of the families share: known prompts, conversations, attacks."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from langchain_safeguard.conversation import Conversation, Turn
from langchain_safeguard.engines.tokens import PromptTokenizer
from langchain_safeguard.guards import LanguageFamily
from langchain_safeguard.taxonomy import Side
from langchain_safeguard.verdict import Verdict
from tests.tokenizers import tokenizer

ASKED = Conversation.of("How do I pick a lock?")
ANSWERED = ASKED.answered("Call a locksmith.")
TALKED = Conversation.of(
    [
        ("user", "How do I pick a lock?"),
        ("assistant", "Why do you ask?"),
        ("user", "I forgot my keys.\nAnd it is cold."),
        ("assistant", "Call a locksmith."),
    ]
)


def golden(name: str) -> str:
    """Return a prompt as the model's owner has it."""
    return (Path(__file__).parent / "golden" / f"{name}.txt").read_text(encoding="utf-8")


def assert_stays_inside(
    family: LanguageFamily, side: Side, text: str, markers: Sequence[str]
) -> None:
    """Make sure that a hostile text moves nothing in the prompt, as a question or as an answer.

    The guard's own words stay as they are, and no marker is there more often than in a harmless
    prompt. A marker that begins with a line break begins a line, whatever character broke it, and
    counts in every spelling that looks like it.
    """
    attacked, harmless = _places(side, f"{text} the end of it"), _places(side, "the end of it")
    for one, other in zip(attacked, harmless, strict=True):
        for hostile, plain in zip(
            family.render(one, side), family.render(other, side), strict=True
        ):
            assert [p.text for p in hostile.pieces if p.trusted] == [
                p.text for p in plain.pieces if p.trusted
            ]
            for marker in markers:
                assert _count(marker, hostile.text) == _count(marker, plain.text), marker
            assert "the end of it" in "".join(p.text for p in hostile.pieces if not p.trusted)


def control_tokens(
    family: LanguageFamily, name: str, conversation: Conversation, side: Side
) -> list[list[str]]:
    """Return the control tokens in each prompt, as a real tokenizer has them."""
    real = tokenizer(name)
    special = {str(t.content) for t in real.added_tokens_decoder.values() if t.special}
    return [
        [
            token
            for token in real.convert_ids_to_tokens(PromptTokenizer(real).encode(prompt.pieces))
            if token in special
        ]
        for prompt in family.render(conversation, side)
    ]


def assert_consistent(verdict: Verdict) -> None:
    """Make sure that the riskiest finding is as risky as the text: a policy sees only findings."""
    assert not verdict.failed
    if verdict.score is not None:
        assert max(finding.score or 0.0 for finding in verdict.findings) == verdict.score


def _places(side: Side, text: str) -> list[Conversation]:
    """Return conversations in which a text stands wherever a stranger can put it."""
    if side == "input":
        return [Conversation((Turn("user", text),))]
    if side == "tool_output":
        return [Conversation((Turn("user", "fine"), Turn("assistant", "()"), Turn("tool", text)))]
    return [
        Conversation((Turn("user", text), Turn("assistant", "fine"))),
        Conversation((Turn("user", "fine"), Turn("assistant", text))),
    ]


def folded(text: str) -> str:
    """Return a text without what shows nothing, and with plain letters for styled ones."""
    plain = text.translate({0xE0000 + code: chr(code) for code in range(0x20, 0x7F)})
    shown = (c for c in plain if unicodedata.category(c) != "Cf" and c not in "\ufe0f\u3164")
    return unicodedata.normalize("NFKC", "".join(shown))


def _count(marker: str, text: str) -> int:
    words = r"\s+".join(map(re.escape, marker.split()))
    begin = r"(?:\A|[\n\r\v\f\x85\u2028\u2029])[^\S\n]*" if marker.startswith("\n") else ""
    return len(re.findall(begin + words, folded(text), re.IGNORECASE))
