"""The ways of guarding an agent that are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from langchain.agents.middleware import AgentMiddleware

from langchain_safeguard.excision import REMOVED
from langchain_safeguard.middleware import SafeguardMiddleware, ToolGuardMiddleware
from langchain_safeguard.policy import Action, Policy, Rule
from langchain_safeguard.safeguard import Safeguard
from langchain_safeguard.taxonomy import Category

DEFENSES: Mapping[str, str] = MappingProxyType(
    {
        "none": "no guard",
        "results": "results of tools are checked; the policy acts on them as a whole",
        "results-rewrite": "results of tools are checked; only what offends is cut out of them",
        "tools": "arguments and results of tools are checked",
        "full": "users' turns, answers, arguments and results of tools are checked",
        "full-rewrite": "all of this, and only what offends is cut out of results",
    }
)
"""Each name with what it means, in the order in which they are reported."""


def middleware_of(defense: str, safeguard: Safeguard) -> Sequence[AgentMiddleware[Any, Any, Any]]:
    """Make the middleware of a defense.

    Args:
        defense: One of `DEFENSES`.
        safeguard: What judges, and what is done about it.
    """
    if defense == "none":
        return []
    if defense.endswith("rewrite"):
        policy = _rewriting(safeguard)
        tools = ToolGuardMiddleware(
            safeguard=safeguard.variant(policy), input=defense.startswith("full")
        )
    else:
        tools = ToolGuardMiddleware(safeguard=safeguard, input=defense != "results")
    if defense.startswith("full"):
        return [SafeguardMiddleware(safeguard=safeguard), tools]
    return [tools]


def _rewriting(safeguard: Safeguard) -> Policy:
    """Return the policy that cuts out of tools' results what the safeguard's own blocks."""
    policy = safeguard.policy
    reported = {category for guard in safeguard.guards for category in guard.categories}
    rules = [
        Rule(
            category,
            Action.REWRITE,
            rule.thresholds[Action.BLOCK],
            sides="tool_output",
            rewrite=REMOVED,
        )
        for category in sorted({*reported, Category.OTHER})
        if Action.BLOCK in (rule := policy.rule_for(category, "tool_output")).thresholds
        and Action.REWRITE not in rule.thresholds
    ]
    return replace(policy, rules=(*rules, *policy.rules))
