"""A stronger guard decides the grey zone."""

from __future__ import annotations

from pathlib import Path

from langchain_safeguard.decision import decide
from langchain_safeguard.escalation.base import Escalation, Resolution
from langchain_safeguard.guards.base import Guard
from langchain_safeguard.loading import load_guard
from langchain_safeguard.policy import Action, Policy
from langchain_safeguard.verdict import Verdict


class SecondOpinion:
    """Asks another guard and decides by a policy of its own.

    It abstains, so that the next handler is asked, when that guard fails or when its policy
    itself would rewrite or escalate.

    Args:
        guard: A name, a folder or a guard.
        policy: How to read it; the default policy if left out.
    """

    def __init__(self, guard: str | Path | Guard, policy: Policy | None = None) -> None:
        """Load the guard."""
        self.guard = load_guard(guard)
        self.policy = policy or Policy.default_policy().restricted_to(self.guard.categories)
        self.name = f"second_opinion:{self.guard.name}"

    def __call__(self, escalation: Escalation) -> Resolution | None:
        """Judge again."""
        verdicts = self.guard.check([escalation.conversation], escalation.side)
        return self._resolve(escalation, verdicts)

    async def acall(self, escalation: Escalation) -> Resolution | None:
        """Judge again without blocking the event loop."""
        verdicts = await self.guard.acheck([escalation.conversation], escalation.side)
        return self._resolve(escalation, verdicts)

    def _resolve(self, escalation: Escalation, verdicts: list[Verdict]) -> Resolution | None:
        decision, _ = decide(self.policy, escalation.conversation, escalation.side, verdicts)
        if decision.failed or decision.action in (Action.REWRITE, Action.ESCALATE):
            return None
        return Resolution(decision.action, decision.text if decision.blocked else None)
