"""Names in findings: those of the guard are kept whole, others are short."""

from __future__ import annotations

from langchain_safeguard import Category
from langchain_safeguard.guards.evidence import judged
from langchain_safeguard.guards.labelled import named

LONG = "Talk of what our competitors sell and of what it costs in their shops"


def test_a_long_name_of_ones_own_keeps_its_category() -> None:
    verdict = judged("guard", 0.9, table={LONG: (Category.FRAUD,)}, listed=named(f"{LONG}, hate"))
    assert [(f.category, f.code) for f in verdict.findings] == [
        (Category.FRAUD, LONG),
        (Category.OTHER, "hate"),
    ]


def test_a_name_that_nobody_knows_cannot_be_a_whole_text() -> None:
    [finding] = judged("guard", 0.9, table={}, listed=["how to pick a lock " * 20]).findings
    assert (finding.category, finding.score) == (Category.OTHER, 0.9)
    assert len(finding.code or "") <= 48
