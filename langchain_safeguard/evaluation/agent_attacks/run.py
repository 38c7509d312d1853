"""Running an agent through cases, guarded in several ways."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from langchain_safeguard.assembly import policy_of
from langchain_safeguard.caching.verdict_cache import VerdictCache
from langchain_safeguard.errors import ConfigurationError
from langchain_safeguard.evaluation.agent_attacks.agent import run_case
from langchain_safeguard.evaluation.agent_attacks.case_file import BUILTIN, read_cases, sampled
from langchain_safeguard.evaluation.agent_attacks.cases import Case
from langchain_safeguard.evaluation.agent_attacks.defenses import DEFENSES, middleware_of
from langchain_safeguard.evaluation.agent_attacks.report import AgentReport, CaseResult
from langchain_safeguard.evaluation.progress import progress_bar
from langchain_safeguard.guards.base import Guard
from langchain_safeguard.loading import load_guard
from langchain_safeguard.policy import Action, Policy, probability
from langchain_safeguard.safeguard import Safeguard

_KEPT = 100_000
LIMIT = 400
"""How many attacked cases are run, unless told otherwise."""


def evaluate_agents(
    guard: str | Path | Guard = "embedded",
    cases: str | Path = BUILTIN,
    *,
    policy: Policy | Mapping[str, Any] | str | Path | None = None,
    defenses: Collection[str] = tuple(DEFENSES),
    thresholds: Sequence[float] = (),
    limit: int = LIMIT,
    seed: int = 0,
    progress: bool = True,
    timeout_s: float | None = 60.0,
) -> AgentReport:
    """Measure what a guard keeps an agent from that obeys whatever it reads.

    Each case is run under each defense with a scripted agent in a real `create_agent` graph behind
    the real middleware, and judged by what its tools did.

    Args:
        guard: A guard, or what `load_guard` takes.
        cases: A file of cases; see `langchain_safeguard.evaluation.agent_attacks.records`. Those in
            the package if left out.
        policy: What is done about what the guard sees; the default policy if left out.
        defenses: Which of `DEFENSES` are compared.
        thresholds: Scores in [0, 1]: every defense but `"none"` is run once for each, in place of
            the policy's `threshold`. Rules with thresholds of their own keep them.
        limit: The most attacked cases, chosen at random; 0 runs all. Benign ones are all run.
        seed: The same seed chooses the same cases.
        progress: Whether to show a progress bar on standard error.
        timeout_s: The seconds the guard may take for one text; `None` waits for ever.

    Raises:
        DatasetError: The file of cases cannot be read, or has wrong lines.
        ConfigurationError: A value is out of range; the guard or a defense is unknown.
    """
    for defense in defenses:
        if defense not in DEFENSES:
            raise ConfigurationError.unknown("defense", defense, DEFENSES)
    if isinstance(defenses, str) or not defenses:
        raise ConfigurationError(f"defenses={defenses!r}; allowed: a list of {', '.join(DEFENSES)}")
    for name, value in (("limit", limit), ("seed", seed)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ConfigurationError(f"{name}={value!r}; allowed: 0, 1, 2, ...")
    for threshold in thresholds:
        probability("thresholds", threshold)
    chosen = sampled(read_cases(cases), limit, seed)
    judge = load_guard(guard)
    # The same texts come back under every defense and threshold.
    cache = VerdictCache(_KEPT)
    base = policy_of(policy, [judge], {})
    setups = _setups([name for name in DEFENSES if name in defenses], base, thresholds)
    results: dict[str, tuple[CaseResult, ...]] = {}
    with progress_bar(len(chosen) * len(setups), "case", shown=progress) as bar:
        for label, (defense, setting) in setups.items():
            bar.set_description_str(label)
            watched = _Watched(judge, setting, timeout_s, cache)
            found = []
            for case in chosen:
                found.append(watched.result(defense, case))
                bar.update(1)
            results[label] = tuple(found)
    return AgentReport(judge.name, judge.revision, base.name, str(cases), seed, results)


def _setups(
    defenses: Sequence[str], policy: Policy, thresholds: Sequence[float]
) -> dict[str, tuple[str, Policy]]:
    """Name each run through the cases."""
    setups = {}
    for defense in defenses:
        if defense == "none" or not thresholds:
            setups[defense] = (defense, policy)
            continue
        for threshold in thresholds:
            setups[f"{defense} @{threshold:g}"] = (defense, replace(policy, threshold=threshold))
    return setups


class _Watched:
    """A guarded agent, and what the guard did about each case."""

    def __init__(
        self, guard: Guard, policy: Policy, timeout_s: float | None, cache: VerdictCache
    ) -> None:
        self._records: list[Mapping[str, Any]] = []
        self._safeguard = Safeguard(
            guard, policy, audit=self._records.append, timeout=timeout_s, cache=cache
        )

    def result(self, defense: str, case: Case) -> CaseResult:
        """Run the agent through a case."""
        self._records.clear()
        outcome = run_case(case, middleware_of(defense, self._safeguard))
        acted = [each for each in self._records if not Action.of(each["action"]).passes]
        failed = any(guard["failed"] for each in self._records for guard in each["guards"])
        return CaseResult(
            case=case,
            outcome=outcome,
            acted_on=tuple(dict.fromkeys(each["side"] for each in acted)),
            failed=failed,
        )
