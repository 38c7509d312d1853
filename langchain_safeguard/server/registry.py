"""The guards and policies of a server, by name: loaded in the background, replaced as a whole."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from langchain_safeguard.assembly import guards_of
from langchain_safeguard.caching.verdict_cache import VerdictCache, VerdictStore
from langchain_safeguard.errors import ConfigurationError, SafeguardError
from langchain_safeguard.escalation.base import Handler
from langchain_safeguard.guards import Guard
from langchain_safeguard.policy import Policy
from langchain_safeguard.safeguard import Safeguard
from langchain_safeguard.server.logs import log, log_decision
from langchain_safeguard.server.metrics import Metrics
from langchain_safeguard.server.policies import fingerprint, read_policies
from langchain_safeguard.server.problems import ApiError, too_busy
from langchain_safeguard.server.settings import Settings
from langchain_safeguard.taxonomy import Category, Side
from langchain_safeguard.threads import in_thread

_LOOK_SECONDS = 1.0
"""How often the policies' files are looked at."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What can be chosen from; never changed, only replaced.

    Attributes:
        guards: The guards, by name.
        policies: The policies, by name, the default one first.
        safeguards: What decides, by guard (`None`: all of them together) and policy.
    """

    guards: Mapping[str, Guard]
    policies: Mapping[str, Policy]
    safeguards: Mapping[tuple[str | None, str], Safeguard]


class Registry:
    """Loads guards and policies, and hands out what decides.

    Args:
        settings: What there is to load.
        handlers: Who is asked when a policy escalates.
        metrics: Where reloads are counted.

    Raises:
        ConfigurationError: A policy, or the verdict store's URL, is wrong.
        MissingExtraError: A package is missing for that store.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        handlers: Sequence[Handler] | Mapping[str, Handler],
        metrics: Metrics,
    ) -> None:
        """Read the policies, which takes no time; the guards are loaded by `load`."""
        self._settings = settings
        self._handlers = handlers
        self._metrics = metrics
        self._seen = fingerprint(settings.policies)
        self._first_policies = read_policies(settings.policies)
        # A guard that is asked alone and together with others is asked once.
        self._cache = VerdictCache(store=_store(settings.verdict_store))
        self._bases: dict[str | None, Safeguard] = {}
        self._offer: Offer | None = None
        # A signal, a changed file and the end of loading may come together: the latest read wins.
        self._lock = threading.Lock()
        self.failure: SafeguardError | None = None
        """Why the guards could not be loaded."""

    @property
    def offer(self) -> Offer:
        """Return what can be chosen from.

        Raises:
            ApiError: The guards are not loaded yet, or cannot be.
        """
        if self._offer is not None:
            return self._offer
        if self.failure is not None:
            raise ApiError(503, "load_failed", "The guards could not be loaded; see the log.")
        raise too_busy("not_ready", "The guards are being loaded; try again in a few seconds.")

    @property
    def is_loading(self) -> bool:
        """Tell whether the guards are neither loaded nor failed to load."""
        return self._offer is None and self.failure is None

    async def load(self) -> None:
        """Load the guards in a thread; a failure is logged and kept in `failure`."""
        try:
            await asyncio.wrap_future(in_thread(self._load, "safeguard-load"))
        except SafeguardError as error:
            self.failure = error
            log("the guards could not be loaded", logging.ERROR, reason=str(error))
        except Exception as error:
            self.failure = SafeguardError(f"a guard failed to load: {type(error).__name__}")
            log("the guards could not be loaded", logging.ERROR, reason=str(self.failure))

    def _load(self) -> None:
        guards = guards_of(list(self._settings.guards))
        names = [guard.name for guard in guards]
        for name in names:
            if names.count(name) > 1:
                raise ConfigurationError(f"two guards are called {name!r}; name each once")
        choices: dict[str | None, Sequence[Guard]] = {None: guards}
        choices.update((guard.name, [guard]) for guard in guards)
        limits = self._settings.limits
        self._bases = {
            name: Safeguard(
                some,
                cache=self._cache,
                handlers=self._handlers,
                audit=log_decision,
                timeout=limits.guard_seconds,
                # Messages that follow each other are judged as one text, with line ends between.
                max_characters=limits.characters + limits.texts,
            )
            for name, some in choices.items()
        }
        with self._lock:
            self._offer = self._offering(self._first_policies)
        self._metrics.ready(guards, self._cache)
        log("ready", guards=names, policies=[*self._offer.policies])

    def _offering(self, policies: Mapping[str, Policy]) -> Offer:
        together = self._bases[None]
        safeguards: dict[tuple[str | None, str], Safeguard] = {}
        for name, policy in policies.items():
            if not self._settings.policies:
                # The package's own policy names hazards that not every guard reports.
                policy = together.policy
            # Rules for what none of the guards reports are mistakes; that one of several does not
            # report everything is not.
            safeguards[None, name] = together.variant(policy)
            for guard, alone in self._bases.items():
                if guard is not None:
                    reported = {*alone.guards[0].categories, Category.OTHER}
                    safeguards[guard, name] = alone.variant(policy.restricted_to(reported))
        return Offer({guard.name: guard for guard in together.guards}, policies, safeguards)

    def choose(
        self, guard: str | None, policy: str | None, side: Side, *, guard_field: str = "guard"
    ) -> Safeguard:
        """Return what decides with this guard (`None`: all) and policy (`None`: the default).

        A request that has it keeps it, whatever is reloaded meanwhile.

        Args:
            guard: The name of a guard.
            policy: The name of a policy.
            side: The side that will be judged.
            guard_field: How the request calls the guard, for errors.

        Raises:
            ApiError: There is none of that name, or the guard cannot judge the side.
        """
        offer = self.offer
        if guard is not None and guard not in offer.guards:
            raise ApiError(
                404,
                f"{guard_field}_not_found",
                f"Unknown {guard_field}; this server has: {', '.join(offer.guards)}.",
                param=guard_field,
            )
        name = next(iter(offer.policies)) if policy is None else policy
        if name not in offer.policies:
            raise ApiError(
                404,
                "policy_not_found",
                f"Unknown policy; this server has: {', '.join(offer.policies)}.",
                param="policy",
            )
        chosen = offer.safeguards[guard, name]
        try:
            chosen.require(side)
        except ConfigurationError as error:
            raise ApiError(400, "side_not_judged", f"{error}.", param="side") from None
        return chosen

    def reload(self) -> None:
        """Read the policies again; if anything in them is wrong, those that are there stay."""
        try:
            with self._lock:
                policies = read_policies(self._settings.policies)
                if self._offer is None:
                    self._first_policies = policies
                else:
                    self._offer = self._offering(policies)
        except SafeguardError as error:
            self._metrics.reload(worked=False)
            log("policies not reloaded, the old ones stay", logging.ERROR, reason=str(error))
        else:
            self._metrics.reload(worked=True)
            log("policies reloaded", policies=[*policies])

    async def watch(self) -> None:
        """Reload when a file changes, for ever."""
        while self._settings.policies:
            await asyncio.sleep(_LOOK_SECONDS)
            seen = await asyncio.to_thread(fingerprint, self._settings.policies)
            if seen != self._seen:
                self._seen = seen
                await asyncio.to_thread(self.reload)


def _store(url: str | None) -> VerdictStore | None:
    if url is None:
        return None
    # Imported late: it needs an extra.
    from langchain_safeguard.caching.redis_verdicts import RedisVerdicts

    return RedisVerdicts(url)
