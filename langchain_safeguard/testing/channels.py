"""What a channel is, and what it is given to run."""

from __future__ import annotations

import importlib.util
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import merge_configs

from langchain_safeguard.errors import ConfigurationError
from langchain_safeguard.testing.transcript import Transcript


@dataclass(frozen=True)
class Probe:
    """What is tested.

    Attributes:
        runnable: The app.
        input: What leads to the unsafe answer.
        config: The caller's config, or `None`.
        timeout_s: Seconds a request over HTTP may take.
    """

    runnable: Runnable[Any, Any]
    input: Any
    config: RunnableConfig | None
    timeout_s: float

    def with_config(self, **extra: Any) -> RunnableConfig:
        """The caller's config and more, e.g. `callbacks`. A new object each time."""
        return merge_configs(self.config, RunnableConfig(**extra))  # type: ignore[typeddict-item]

    @property
    def bound(self) -> Any:
        """The runnable inside `.bind()`, `.with_config()` and the like."""
        inner: Any = self.runnable
        while type(inner).__name__.startswith("RunnableBinding") and hasattr(inner, "bound"):
            inner = inner.bound
        return inner


@dataclass(frozen=True)
class Channel:
    """One way out of an app.

    Attributes:
        name: Its name in reports and in `channels=`.
        group: Selects several at once in `channels=`.
        run: Runs the app and notes what comes out, with the sync methods. Or `None`.
        arun: The same with the async methods. Or `None`.
        speaks: Whether an app that answers must be heard here. A silent channel then is a test
            that proves nothing. Not true of `custom` events, logs, callbacks.
        needs: Packages without which the channel is skipped.
        by_default: Whether it runs without being named.
    """

    name: str
    group: str
    run: Callable[[Probe, Transcript], None] | None = None
    arun: Callable[[Probe, Transcript], Awaitable[None]] | None = None
    speaks: bool = True
    needs: tuple[str, ...] = ()
    by_default: bool = True

    @property
    def missing(self) -> list[str]:
        """Packages this channel needs that are not installed."""
        return [each for each in self.needs if importlib.util.find_spec(each) is None]


def select(available: Iterable[Channel], wanted: Iterable[str] | None) -> list[Channel]:
    """The channels with these names or of these groups, or all of them, in fixed order.

    Raises:
        ConfigurationError: A name is neither a channel nor a group.
    """
    channels = list(available)
    if wanted is None:
        return [c for c in channels if c.by_default]
    names = {wanted} if isinstance(wanted, str) else set(wanted)
    allowed = [c.name for c in channels] + sorted({c.group for c in channels})
    for name in sorted(names):
        if name not in allowed:
            raise ConfigurationError.unknown("channel", name, allowed)
    return [c for c in channels if c.name in names or (c.group in names and c.by_default)]
