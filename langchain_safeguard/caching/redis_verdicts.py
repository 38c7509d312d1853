"""Verdicts that several processes and machines share, in Redis; extra `[redis]`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from pydantic import TypeAdapter, ValidationError

from langchain_safeguard.errors import ConfigurationError, MissingExtraError
from langchain_safeguard.verdict import Verdict

try:
    import redis
except ModuleNotFoundError as error:
    raise MissingExtraError("redis", "redis") from error

_VERDICT = TypeAdapter(Verdict)
_PATIENCE_S = 0.5


class RedisVerdicts:
    """A store for `VerdictCache`.

    Only verdicts of guards with a `fingerprint` are found by other processes. **Whoever can write
    to the server can decide what passes**: keep it to yourself. Keys are hashes of texts; an
    explanation that a guard wrote is stored as it is.

    When the server is slow or away, the guard is asked.

    Args:
        url: Where the server is, such as `"redis://:password@host:6379/0"` or `"rediss://host"`.
        keep: How long a verdict is kept.
        prefix: What the keys begin with.

    Raises:
        ConfigurationError: A value is wrong.
        MissingExtraError: The package is not installed.

    Example:
        ```python
        cache = VerdictCache(store=RedisVerdicts("redis://localhost"))
        safeguard = Safeguard(cache=cache)
        ```
    """

    def __init__(
        self, url: str, *, keep: timedelta = timedelta(days=1), prefix: str = "safeguard:"
    ) -> None:
        """Check the values; nothing is sent yet."""
        if not isinstance(keep, timedelta) or keep < timedelta(seconds=1):
            raise ConfigurationError(f"keep={keep!r}; allowed: a timedelta of a second or more")
        if not isinstance(prefix, str):
            raise ConfigurationError(f"prefix={prefix!r}; allowed: a text")
        try:
            self._redis: Any = redis.Redis.from_url(
                url, socket_timeout=_PATIENCE_S, socket_connect_timeout=_PATIENCE_S
            )
        except (ValueError, AttributeError, TypeError):
            raise ConfigurationError(
                "the url of the Redis server cannot be read; allowed: such as 'redis://host:6379/0'"
            ) from None
        self._keep = int(keep.total_seconds())
        self._prefix = prefix

    def read(self, keys: Sequence[str]) -> Sequence[Verdict | None]:
        """Return what is known for each key; what cannot be read is not known."""
        return [*map(_verdict, self._redis.mget([self._prefix + key for key in keys]))]

    def write(self, verdicts: Mapping[str, Verdict]) -> None:
        """Keep verdicts by their keys."""
        with self._redis.pipeline(transaction=False) as pipeline:
            for key, verdict in verdicts.items():
                pipeline.set(self._prefix + key, _VERDICT.dump_json(verdict), ex=self._keep)
            pipeline.execute()


def _verdict(value: bytes | None) -> Verdict | None:
    if value is None:
        return None
    try:
        return _VERDICT.validate_json(value)
    except ValidationError:
        return None
