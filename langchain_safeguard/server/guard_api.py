"""`POST /v1/guard`: a whole conversation in, the whole decision out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, Field

from langchain_safeguard.conversation import Conversation
from langchain_safeguard.decision import Decision
from langchain_safeguard.errors import UnreadableInputError
from langchain_safeguard.policy import Policy
from langchain_safeguard.server.bodies import Body
from langchain_safeguard.server.openai_api import check_lengths
from langchain_safeguard.server.problems import ApiError
from langchain_safeguard.server.settings import Limits
from langchain_safeguard.taxonomy import Side
from langchain_safeguard.verdict import Finding, Verdict


class GuardRequest(Body):
    """A conversation, and how to judge it."""

    messages: list[dict[str, Any]] = Field(
        min_length=1,
        description="Messages with `role` and `content`, as in OpenAI's chat API; the last ones "
        "are judged, the others are their context.",
    )
    side: Side = Field(
        "input",
        description="Which part is judged: what the user said, what the model answered, what goes "
        "into a tool or comes out of it.",
    )
    policy: str | None = Field(None, description="A policy's name; the default one if left out.")
    guard: str | None = Field(None, description="A guard's name; all together if left out.")
    ticket: str | None = Field(
        None,
        min_length=1,
        description="The ticket under which a person was asked about this very conversation: what "
        "they have decided holds.",
    )


class FindingView(BaseModel):
    """A hazard that a guard speaks of, and what the policy makes of it."""

    category: str
    score: float | None
    code: str | None
    rule: str = Field(description="The rule that has the word on this category and side.")
    thresholds: dict[str, float] = Field(description="From which score on it does what.")
    action: str = Field(description="What it does at this score.")


class SpanView(BaseModel):
    """A window in which a long text was judged; characters count from 0."""

    start: int
    end: int
    score: float


class VerdictView(BaseModel):
    """What one guard saw."""

    guard: str
    revision: str | None
    score: float | None
    failed: bool
    reason: str | None
    explanation: str | None
    findings: list[FindingView]
    spans: list[SpanView]
    unchecked: list[str]
    dropped_turns: int
    tokens: int | None
    latency_ms: float | None


class GuardResponse(BaseModel):
    """What was decided, and on what grounds."""

    action: str = Field(description="allow, flag, rewrite, escalate or block.")
    passes: bool = Field(description="Whether the text goes on unchanged.")
    text: str = Field(description="The text to use: the checked one, the rewritten, the refusal.")
    side: str
    score: float | None
    categories: list[str] = Field(description="What fired, the strictest and riskiest first.")
    rule: str | None = Field(description="The rule that decided.")
    decision_id: str
    failed: bool = Field(description="Whether a guard could not judge.")
    unchecked: list[str] = Field(description="Parts that were not judged, such as images.")
    resolved_by: str | None = Field(description="The escalation handler that decided.")
    ticket: str | None = Field(description="The ticket under which a person is asked.")
    policy: str
    verdicts: list[VerdictView]


def conversation_of(request: GuardRequest, limits: Limits) -> Conversation:
    """Read the conversation of a request.

    Raises:
        ApiError: There are too many messages, or they are too long.
        UnreadableInputError: It is no conversation, or does not end with a turn of its side.
    """
    if len(request.messages) > limits.texts:
        raise ApiError(
            400,
            "too_many_messages",
            f"messages: {len(request.messages)} of them; this server takes at most {limits.texts}.",
            param="messages",
        )
    try:
        conversation = Conversation.of(request.messages, request.side)
    except UnreadableInputError:
        raise
    except Exception as error:
        # Messages can be wrong in ways nobody foresaw; that is not the server's failure.
        raise UnreadableInputError(
            f"cannot read the messages ({type(error).__name__}); write them as in OpenAI's chat API"
        ) from None
    check_lengths([conversation], limits, "messages")
    conversation.checked(request.side)
    return conversation


def response_of(decision: Decision, policy: Policy, name: str) -> dict[str, Any]:
    """Spell a decision.

    Args:
        decision: What was decided.
        policy: By which policy.
        name: What the server calls it.
    """
    return {
        **decision.summary(),
        "passes": decision.passes,
        "text": decision.text,
        "policy": name,
        "verdicts": [_verdict(each, policy, decision.side) for each in decision.verdicts],
    }


def _verdict(verdict: Verdict, policy: Policy, side: Side) -> dict[str, Any]:
    findings = _findings(verdict.findings, verdict, policy, side)
    return {**asdict(verdict), "findings": findings}


def _findings(
    findings: Sequence[Finding], verdict: Verdict, policy: Policy, side: Side
) -> list[dict[str, Any]]:
    views = []
    for finding in findings:
        rule = policy.rule_for(finding.category, side)
        fired = policy.fired([Verdict(verdict.guard, findings=(finding,))], side)
        views.append(
            {
                "category": finding.category.value,
                "score": finding.score,
                "code": finding.code,
                "rule": rule.name,
                "thresholds": {
                    action.value: policy.threshold if threshold is None else threshold
                    for action, threshold in rule.thresholds.items()
                },
                "action": fired[0].action.value if fired else "allow",
            }
        )
    return views
