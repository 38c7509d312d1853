"""What is done about a text: the policy's answer to the verdicts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_safeguard.conversation import Conversation
from langchain_safeguard.policy import Action, Policy, Rule
from langchain_safeguard.taxonomy import Category, Side
from langchain_safeguard.verdict import Finding, Verdict


@dataclass(frozen=True, slots=True)
class Decision:
    """What the policy made of the verdicts.

    Attributes:
        action: What became of the text in the end: after rewriting and escalation. `escalate` if a
            person is yet to decide.
        text: The text to use: the checked one, the rewritten one, or the refusal.
        side: The side that was judged.
        verdicts: The evidence, the first verdict of each guard first.
        score: The highest overall score of the verdicts, in [0, 1]; `None` if none gave one.
        categories: The categories that fired, the strictest and riskiest first.
        rule: The name of the rule that decided; `"on_failure"` or `"on_unchecked"` if that did;
            `None` when nothing fired.
        decision_id: The same for the same text, side, policy and guards.
        unchecked: Parts that were not judged.
        resolved_by: The escalation handler that decided, if one did.
        ticket: The review ticket under which a person is asked, until they have decided: the text
            is blocked so long. `with_ticket` releases what they decide.
    """

    action: Action
    text: str
    side: Side
    verdicts: tuple[Verdict, ...]
    score: float | None
    categories: tuple[str, ...]
    rule: str | None
    decision_id: str
    unchecked: tuple[str, ...] = ()
    resolved_by: str | None = None
    ticket: str | None = None

    @property
    def passes(self) -> bool:
        """Tell whether the text goes on unchanged (it was allowed or only flagged)."""
        return self.action.passes

    @property
    def blocked(self) -> bool:
        """Tell whether `text` is a refusal."""
        return self.action is Action.BLOCK

    @property
    def failed(self) -> bool:
        """Tell whether a guard could not judge."""
        return any(verdict.failed for verdict in self.verdicts)

    def summary(self) -> dict[str, Any]:
        """Return the facts without any text: for metadata, events and records."""
        return {
            "action": self.action.value,
            "side": self.side,
            "score": self.score,
            "categories": list(self.categories),
            "rule": self.rule,
            "decision_id": self.decision_id,
            "failed": self.failed,
            "unchecked": list(self.unchecked),
            "resolved_by": self.resolved_by,
            "ticket": self.ticket,
        }


def decide(
    policy: Policy, conversation: Conversation, side: Side, verdicts: Sequence[Verdict]
) -> tuple[Decision, Rule | None]:
    """Apply a policy to the verdicts on a conversation.

    Returns:
        The decision and the rule behind it (`None` if none fired). Unless the text passes, the
        decision's text is the refusal: rewriting and escalation put something better there.
    """
    checked = conversation.checked(side)
    verdicts = tuple(map(_with_finding, verdicts))
    fired = policy.fired(verdicts, side)
    unchecked = (*checked.unchecked, *(note for v in verdicts for note in v.unchecked))

    action, name, rule = Action.ALLOW, None, None
    if fired:
        action, name, rule = fired[0].action, fired[0].rule.name, fired[0].rule
    if any(v.failed for v in verdicts) and policy.on_failure.severity > action.severity:
        action, name, rule = policy.on_failure, "on_failure", None
    if unchecked and policy.on_unchecked.severity > action.severity:
        action, name, rule = policy.on_unchecked, "on_unchecked", None

    refusal = rule.message if rule is not None and rule.message is not None else policy.message
    decision = Decision(
        action=action,
        text=checked.text if action.passes else refusal,
        side=side,
        verdicts=verdicts,
        score=max((v.score for v in verdicts if v.score is not None), default=None),
        categories=tuple(dict.fromkeys(f.finding.category.value for f in fired)),
        rule=name,
        decision_id=_decision_id(policy, conversation, side, verdicts),
        unchecked=unchecked,
    )
    return decision, rule


def _with_finding(verdict: Verdict) -> Verdict:
    """Give a guard that says "unsafe" without a category the category `other`."""
    if verdict.findings or verdict.score is None:
        return verdict
    return replace(verdict, findings=(Finding(Category.OTHER, verdict.score),))


def _decision_id(
    policy: Policy, conversation: Conversation, side: Side, verdicts: Sequence[Verdict]
) -> str:
    facts = (
        policy.fingerprint,
        side,
        [(verdict.guard, verdict.revision) for verdict in verdicts],
        [(turn.role, turn.text, turn.unchecked) for turn in conversation.turns],
    )
    return hashlib.sha256(repr(facts).encode("utf-8", "backslashreplace")).hexdigest()[:16]
