"""What a server is told: its guards, policies, keys and limits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

from langchain_safeguard.errors import ConfigurationError

if TYPE_CHECKING:
    from langchain_safeguard.guards import Guard

KEYS_VARIABLE = "LANGCHAIN_SAFEGUARD_API_KEYS"
"""The environment variable with the API keys, separated by commas."""
_SHORTEST_KEY = 16


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one request may bring, and how many may be there at once.

    Attributes:
        body_bytes: The largest body of a request, in bytes.
        buffered_bytes: The bytes of bodies that may be in memory at once, before they are admitted.
        texts: The most texts, or messages, of one request.
        characters: The most characters in the texts of one request together. What it asks for
            is judged before what comes later, so this is also how long others may have to wait.
        requests: The most requests that are checked at once; more are turned away, not queued.
        connections: The most open connections.
        head_seconds: How long a client may take to send a request's headers.
        body_seconds: How long it may take to send its body.
        guard_seconds: How long a guard may take for its verdict; after that the policy's
            `on_failure` decides.
        request_seconds: How long a request may take in all, from its body on.

    Raises:
        ConfigurationError: A number is not above 0, `guard_seconds` is not below
            `request_seconds`, or `body_bytes` is above `buffered_bytes`.
    """

    body_bytes: int = 8 << 20
    buffered_bytes: int = 128 << 20
    texts: int = 256
    characters: int = 100_000
    requests: int = 64
    connections: int = 1024
    head_seconds: float = 10.0
    body_seconds: float = 20.0
    guard_seconds: float = 30.0
    request_seconds: float = 60.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        for each in fields(self):
            value = getattr(self, each.name)
            whole = not each.name.endswith("_seconds")
            kinds = int if whole else (int, float)
            if isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value < math.inf:
                allowed = "1, 2, ..." if whole else "seconds above 0"
                raise ConfigurationError(f"{each.name}={value!r}; allowed: {allowed}")
        if self.guard_seconds >= self.request_seconds:
            raise ConfigurationError(
                f"guard_seconds={self.guard_seconds} must be below "
                f"request_seconds={self.request_seconds}: a late guard has to be answered for"
            )
        if self.body_bytes > self.buffered_bytes:
            raise ConfigurationError(
                f"body_bytes={self.body_bytes} must not be above "
                f"buffered_bytes={self.buffered_bytes}: such a body would always be turned away"
            )


@dataclass(frozen=True, slots=True)
class Settings:
    """What a server is told.

    Attributes:
        guards: Names, folders or guards. All judge, and the strictest rule wins, unless a request
            names one of them.
        policies: Where the policies are: `"FILE"`, `"NAME=FILE"`, or a folder of YAML files, each
            named by its file's name. The one called `default` holds where a request names none,
            or the first. Nothing means the default policy of the package.
        api_keys: Clients send one of these as `Authorization: Bearer KEY`; nothing means that
            whoever reaches the server may use it.
        limits: How much is let in.
        verdict_store: The URL of a Redis server (extra `[redis]`) through which several servers
            share their guards' verdicts; nothing means that each remembers its own. Whoever can
            write there decides what passes.
        local_only: Whether only requests are answered that call the server `localhost`, or by a
            loopback address: for servers without keys, so that no web page can reach them through
            a browser on the same machine.

    Raises:
        ConfigurationError: A value is wrong.
    """

    guards: Sequence[str | Path | Guard] = ("embedded",)
    policies: Sequence[str] = ()
    api_keys: Sequence[str] = field(default=(), repr=False)
    limits: Limits = field(default_factory=Limits)
    verdict_store: str | None = field(default=None, repr=False)
    local_only: bool = False

    def __post_init__(self) -> None:
        """Check what can be checked before a guard is loaded."""
        for name in ("guards", "policies", "api_keys"):
            value = getattr(self, name)
            if isinstance(value, str) or not isinstance(value, Sequence):
                raise ConfigurationError(f"{name} is a {type(value).__name__}; allowed: a list")
        if not self.guards:
            raise ConfigurationError("guards=[]; name at least one")
        # Imported late: it takes a while, and the command line describes these settings.
        from langchain_safeguard.loading import check_name

        for guard in self.guards:
            check_name(guard)
        for number, key in enumerate(self.api_keys, start=1):
            if not isinstance(key, str) or not key.isascii() or len(key) < _SHORTEST_KEY:
                # The key itself is a secret, also if it is a bad one.
                raise ConfigurationError(
                    f"API key {number} is too short or no ASCII text; use at least "
                    f"{_SHORTEST_KEY} characters, such as: python -c "
                    '"import secrets; print(secrets.token_urlsafe())"'
                )


def read_api_keys(file: str | Path | None, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Read the API keys from a file (one a line, `#` for comments) and from the environment.

    Raises:
        ConfigurationError: The file cannot be read, or holds no key.
    """
    keys = [key.strip() for key in environment.get(KEYS_VARIABLE, "").split(",")]
    if file is not None:
        found = [*_keys_in(Path(file))]
        if not found:
            raise ConfigurationError(f"{file} holds no API key; write one a line")
        keys += found
    return tuple(dict.fromkeys(filter(None, keys)))


def _keys_in(file: Path) -> Iterator[str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"cannot read API keys from {file}: {type(error).__name__}"
        ) from None
    for line in lines:
        key = line.partition("#")[0].strip()
        if key:
            yield key
