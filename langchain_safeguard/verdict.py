"""What a guard saw: evidence, without any opinion on what to do about it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from langchain_safeguard.taxonomy import Category


@dataclass(frozen=True, slots=True)
class Finding:
    """One hazard that a guard speaks of.

    Attributes:
        category: The canonical hazard.
        score: Its risk in [0, 1], higher is riskier; `None` where the guard gives no number and
            only says that the hazard is there.
        code: The guard's own name for it, such as `"O3"`.
    """

    category: Category
    score: float | None = None
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of the checked text and its risk, where a long text was judged in windows.

    Characters are counted in the text as the guard read it: the embedded guard, for one, leaves out
    invisible ones.

    Attributes:
        start: Its first character.
        end: One past its last character.
        score: The risk of its riskiest category, in [0, 1].
    """

    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one guard saw in one text.

    Attributes:
        guard: The guard's name.
        revision: Which version of its weights judged, where known.
        findings: The hazards it speaks of, riskiest first. A low score is a finding too: the
            policy has the thresholds.
        score: The overall risk in [0, 1]; `None` where the guard gives no number.
        failed: The guard could not judge. Such a verdict is never read as safe.
        reason: Why it failed; never holds the checked text.
        unchecked: Parts that were not judged, such as `"image"`.
        explanation: The guard's own words, where it writes any.
        spans: The windows in which a long text was judged.
        dropped_turns: How many earlier turns the guard did not see, because it reads only so much.
        tokens: How many tokens the guard read.
        latency_ms: How long it took, in milliseconds, waiting in the queue included; 0 if it was
            known already, and no guard was asked. `None` if the guard does not say.
    """

    guard: str
    revision: str | None = None
    findings: tuple[Finding, ...] = ()
    score: float | None = None
    failed: bool = False
    reason: str | None = None
    unchecked: tuple[str, ...] = ()
    explanation: str | None = None
    spans: tuple[Span, ...] = ()
    dropped_turns: int = 0
    tokens: int | None = None
    latency_ms: float | None = None

    def remembered(self) -> Verdict:
        """Return the verdict as that of a check for which no guard was asked."""
        return self if self.latency_ms is None else replace(self, latency_ms=0.0)

    @property
    def has_sound_scores(self) -> bool:
        """Tell whether all scores are numbers in [0, 1]."""
        scores = [self.score, *(finding.score for finding in self.findings)]
        return all(score is None or 0 <= score <= 1 for score in scores)
