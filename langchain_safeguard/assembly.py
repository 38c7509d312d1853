"""Reading what a `Safeguard` is built of: its guards, handlers, policy and cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import Runnable

from langchain_safeguard.caching.verdict_cache import VerdictCache
from langchain_safeguard.errors import ConfigurationError
from langchain_safeguard.guards.base import Guard
from langchain_safeguard.loading import load_guard
from langchain_safeguard.policy import Policy
from langchain_safeguard.taxonomy import Category

if TYPE_CHECKING:
    from langchain_safeguard.escalation.base import Handler


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
    """Give each handler a name that rules can refer to.

    Raises:
        ConfigurationError: Something is no handler, or two have the same name.
    """
    given: Any = handlers
    if isinstance(given, str) or not isinstance(given, Mapping | Sequence):
        raise ConfigurationError(f"handlers={given!r}; allowed: a list or a dict of handlers")
    for handler in handlers.values() if isinstance(handlers, Mapping) else handlers:
        if isinstance(handler, type) or not (isinstance(handler, Runnable) or callable(handler)):
            raise ConfigurationError(
                f"handler {handler!r}; allowed: a function, a SecondOpinion, a Runnable, ..."
            )
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


def cache_of(cache: object) -> VerdictCache | None:
    """Return a cache as it is, or one of that many entries.

    Raises:
        ConfigurationError: It is neither, nor `None`.
    """
    if cache is None or isinstance(cache, VerdictCache):
        return cache
    if type(cache) is int and cache > 0:
        return VerdictCache(cache)
    raise ConfigurationError(f"cache={cache!r}; allowed: a VerdictCache, 1, 2, ..., or None")


def audit_of(audit: object, text: object) -> tuple[Any, bool]:
    """Check who gets records, and whether they hold the checked text.

    Raises:
        ConfigurationError: Nobody can be called so, or it is neither yes nor no.
    """
    if audit is not None and (isinstance(audit, type) or not callable(audit)):
        raise ConfigurationError(f"audit={audit!r}; allowed: a function of a record, or None")
    if not isinstance(text, bool):
        raise ConfigurationError(f"audit_text={text!r}; allowed: True, False")
    return audit, text


def policy_of(
    policy: Policy | Mapping[str, Any] | str | Path | None,
    guards: Sequence[Guard],
    handlers: Mapping[str, Handler] | None = None,
) -> Policy:
    """Read a policy, and check that guards can report, and handlers exist for, what it names.

    Args:
        policy: The policy; the default policy, cut to what the guards report, if left out.
        guards: Who judges.
        handlers: Who can be asked; `None` where nobody is, whatever the rules say.

    Raises:
        ConfigurationError: A rule names what is not there.
    """
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
    if handlers is None:
        return policy
    for rule in policy.rules:
        for handler in rule.escalate_to:
            if handler not in handlers:
                raise ConfigurationError.unknown("handler", handler, handlers or ["(none given)"])
    return policy
