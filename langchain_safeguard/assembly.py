"""Reading what a `Safeguard` is built of: its guards, its handlers and its policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langchain_safeguard.errors import ConfigurationError
from langchain_safeguard.escalation.base import Handler
from langchain_safeguard.guards.base import Guard
from langchain_safeguard.loading import load_guard
from langchain_safeguard.policy import Policy
from langchain_safeguard.taxonomy import Category


def guards_of(guard: object) -> tuple[Guard, ...]:
    """Load one guard or several; the embedded guard for `None`."""
    if guard is None:
        return (load_guard(),)
    if isinstance(guard, str | Path | Guard) or not isinstance(guard, Sequence):
        return (load_guard(guard),)  # type: ignore[arg-type]
    if not guard:
        raise ConfigurationError("guard=[]; name at least one")
    return tuple(map(load_guard, guard))


def handlers_of(handlers: Sequence[Handler] | Mapping[str, Handler]) -> dict[str, Handler]:
    """Give each handler a name that rules can refer to."""
    if isinstance(handlers, Mapping):
        return dict(handlers)
    named: dict[str, Handler] = {}
    for handler in handlers:
        name = getattr(handler, "name", None) or getattr(handler, "__name__", None)
        name = str(name or type(handler).__name__)
        if name in named:
            raise ConfigurationError(f"two handlers are called {name!r}; give them as a dict")
        named[name] = handler
    return named


def policy_of(
    policy: Policy | Mapping[str, Any] | str | Path | None,
    guards: Sequence[Guard],
    handlers: Mapping[str, Handler],
) -> Policy:
    """Read a policy, and check that guards can report, and handlers exist for, what it names."""
    reported = {category for guard in guards for category in (*guard.categories, Category.OTHER)}
    if policy is None:
        return Policy.default_policy().restricted_to(reported)
    policy = Policy.of(policy)
    names = ", ".join(guard.name for guard in guards)
    for rule, category in policy.unreported(reported):
        raise ConfigurationError(
            f"rule {rule.name!r} names {category.value!r}, which {names} never reports; allowed: "
            f"{', '.join(sorted(reported))}"
        )
    for rule in policy.rules:
        for handler in rule.escalate_to:
            if handler not in handlers:
                raise ConfigurationError.unknown("handler", handler, handlers or ["(none given)"])
    return policy
