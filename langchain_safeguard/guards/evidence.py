"""From what a language model answered to findings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from langchain_safeguard.errors import GuardOutputError
from langchain_safeguard.taxonomy import Category
from langchain_safeguard.verdict import Finding, Verdict

Codes = Mapping[str, tuple[Category, ...]]
"""The categories that each code of a model stands for."""

_VERDICT_LINE = re.compile(r"\s*(safe|unsafe)\s*(?:[\n,:]\s*(.*))?", re.IGNORECASE | re.DOTALL)
_YES_OR_NO = re.compile(r"\s*(yes|no)(?=\s*(?:$|[\n.,:;!]))", re.IGNORECASE)
_CONTROL = re.compile(r"<\|[a-z_]+\|>|</?s>|<end_of_turn>|<eos>")

_LONGEST = 48
"""How many letters are kept of a name nobody knows: no model should recite texts in findings."""


def without_control(text: str) -> str:
    """Return an answer without the control tokens, such as `<|eot_id|>`, that end it."""
    return _CONTROL.sub("", text)


def safe_or_unsafe(text: str) -> tuple[bool, list[str]]:
    """Read `safe`, or `unsafe` with the codes of the hazards in a second line.

    Returns:
        Whether it is unsafe, and the codes as they are written.

    Raises:
        GuardOutputError: It is neither, or contradicts itself.
    """
    match = _VERDICT_LINE.fullmatch(_CONTROL.sub("", text))
    if match is None:
        raise GuardOutputError("the answer is neither 'safe' nor 'unsafe'")
    codes = [code for code in re.split(r"[\s,;]+", match[2] or "") if code]
    if match[1].lower() == "safe" and codes:
        raise GuardOutputError("the answer says 'safe' and goes on")
    return match[1].lower() == "unsafe", codes


def yes_or_no(text: str) -> bool:
    """Read an answer that begins with `Yes` or `No`; reasons may follow, after a stop or in a line.

    Raises:
        GuardOutputError: It begins with neither.
    """
    match = _YES_OR_NO.match(_CONTROL.sub("", text))
    if match is None:
        raise GuardOutputError("the answer begins with neither 'Yes' nor 'No'")
    return match[1].lower() == "yes"


def judged(
    guard: str,
    score: float | None,
    *,
    table: Codes,
    listed: Sequence[str] = (),
    likely: Mapping[str, float] | None = None,
    tokens: int | None = None,
    explanation: str | None = None,
) -> Verdict:
    """Make the verdict on a text: its riskiest finding is as risky as the text.

    Args:
        guard: The guard's name.
        score: The risk of the text in [0, 1]; `None` where the model gives no number, and says so.
        table: The categories of each code. What is not in it becomes `other`, with its code.
        listed: The codes that the model named; they have the risk of the text.
        likely: How likely the model would have named each code first; those it did not name have
            that part of the risk.
        tokens: How many tokens the prompt had.
        explanation: The model's own words.
    """
    likely = likely or {}
    named = list(dict.fromkeys(code if code in table else code[:_LONGEST] for code in listed))
    if not named and likely:
        named = [max(likely, key=lambda code: likely[code])]
    risks: dict[str, float | None] = dict.fromkeys(named, score)
    if score is not None:
        for code, part in sorted(likely.items(), key=lambda item: -item[1]):
            risks.setdefault(code, score * part)
    findings = [
        Finding(category, risk, code)
        for code, risk in risks.items()
        for category in table.get(code, (Category.OTHER,))
    ] or [Finding(Category.OTHER, score)]
    return Verdict(
        guard=guard,
        findings=tuple(findings),
        score=score,
        explanation=explanation,
        tokens=tokens,
    )


def judged_each(
    guard: str, risks: Mapping[str, float], *, table: Codes, tokens: int | None = None
) -> Verdict:
    """Make the verdict of a model that was asked about one hazard at a time.

    Args:
        guard: The guard's name.
        risks: The risk of each hazard in [0, 1], by its code; the text is as risky as the riskiest.
        table: The categories of each code.
        tokens: How many tokens the prompts had.
    """
    findings = [
        Finding(category, risk, code)
        for code, risk in sorted(risks.items(), key=lambda item: -item[1])
        for category in table.get(code, (Category.OTHER,))
    ]
    return Verdict(guard=guard, findings=tuple(findings), score=max(risks.values()), tokens=tokens)


def harmless(guard: str, tokens: int | None = None, explanation: str | None = None) -> Verdict:
    """Make the verdict of a model that says "safe" without a number."""
    return Verdict(guard=guard, tokens=tokens, explanation=explanation)
