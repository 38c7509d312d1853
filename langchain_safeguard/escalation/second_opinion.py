"""A stronger guard decides the grey zone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langchain_safeguard.assembly import cache_of, policy_of
from langchain_safeguard.caching.verdict_cache import VerdictCache
from langchain_safeguard.decision import decide
from langchain_safeguard.errors import EscalationError
from langchain_safeguard.escalation.base import Escalation, Resolution
from langchain_safeguard.guard_caller import GuardCaller
from langchain_safeguard.guards.base import Guard
from langchain_safeguard.loading import load_guard
from langchain_safeguard.policy import Action, Policy
from langchain_safeguard.verdict import Verdict


class SecondOpinion:
    """Asks another guard and decides by a policy of its own.

    The next handler is asked when that guard cannot judge, and when its policy itself would rewrite
    or escalate.

    Args:
        guard: A name, a folder or a guard.
        policy: How to read it: a policy, a dict, or the path of a YAML file; the default policy if
            left out.
        timeout: The seconds the guard may take, all attempts together; `None` waits for ever, or as
            long as the `Safeguard` gives its handlers.
        attempts: How often it is asked when it fails for a transient reason.
        max_characters: A longer text is not judged.
        cache: How many verdicts are remembered, or a `VerdictCache` to share; `None` asks each
            time.

    Raises:
        ConfigurationError: A value is wrong, or the policy has a rule for a category that the guard
            never reports; the message names it and what is allowed.
        GuardLoadError: The guard cannot be loaded.

    Example:
        ```python
        second = SecondOpinion("meta-llama/Llama-Guard-3-1B")
        policy = {"rules": [{"thresholds": {"escalate": 0.3, "block": 0.9}}]}
        safeguard = Safeguard(policy=policy, handlers=[second])
        ```
    """

    def __init__(
        self,
        guard: str | Path | Guard,
        policy: Policy | Mapping[str, Any] | str | Path | None = None,
        *,
        timeout: float | None = 60.0,
        attempts: int = 3,
        max_characters: int = 250_000,
        cache: VerdictCache | int | None = 4096,
    ) -> None:
        """Load the guard and check the policy against what it can report."""
        self.cache = cache_of(cache)
        self.guard = load_guard(guard)
        self.policy = policy_of(policy, [self.guard])
        self.name = f"second_opinion:{self.guard.name}"
        self._caller = GuardCaller(
            self.guard,
            timeout=timeout,
            attempts=attempts,
            limit=max_characters,
            cache=self.cache,
        )

    def __call__(self, escalation: Escalation) -> Resolution | None:
        """Judge again.

        Raises:
            EscalationError: The guard does not judge this side.
        """
        self._require(escalation)
        verdicts = self._caller.ask([escalation.conversation], escalation.side)
        return self._resolve(escalation, verdicts)

    async def acall(self, escalation: Escalation) -> Resolution | None:
        """Judge again without blocking the event loop."""
        self._require(escalation)
        verdicts = await self._caller.aask([escalation.conversation], escalation.side)
        return self._resolve(escalation, verdicts)

    def _require(self, escalation: Escalation) -> None:
        if escalation.side not in self.guard.sides:
            raise EscalationError(f"{self.guard.name} does not judge {escalation.side}")

    def _resolve(self, escalation: Escalation, verdicts: list[Verdict]) -> Resolution | None:
        decision, _ = decide(self.policy, escalation.conversation, escalation.side, verdicts)
        if decision.failed or decision.action in (Action.REWRITE, Action.ESCALATE):
            return None
        return Resolution(decision.action, decision.text if decision.blocked else None)
