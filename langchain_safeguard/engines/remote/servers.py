"""Which servers run a model, and how they may be used."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from langchain_safeguard.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Servers:
    """Servers that run the same model; equal ones share an engine.

    Attributes:
        urls: Where their API begins, such as `"http://gpu-1:8000/v1"`.
        model: What they call the model.
        api_key: What they ask for, if anything; it is never shown.
        timeout: The most seconds for one question, all attempts together.
        failover_after: After how many seconds without an answer another server is asked instead,
            where there is one.
        max_concurrency: The most requests under way at one server.
    """

    urls: tuple[str, ...]
    model: str
    api_key: str | None = field(default=None, repr=False)
    timeout: float = 60.0
    failover_after: float = 10.0
    max_concurrency: int = 32


def remote_options(engine: object, **given: object) -> dict[str, Any]:
    """Return the options for servers that were given; none where the model runs here.

    Raises:
        ConfigurationError: The engine is unknown, or the options are not for it.
    """
    options = {key: value for key, value in given.items() if value is not None}
    if engine not in ("local", "openai"):
        raise ConfigurationError.unknown("engine", engine, ("local", "openai"))
    if engine == "local" and options:
        raise ConfigurationError(f"{', '.join(options)}: allowed with engine='openai'")
    if engine == "openai" and "base_url" not in options:
        raise ConfigurationError("engine='openai' needs base_url=, a URL or a list of URLs")
    return options


def servers(
    *,
    base_url: object,
    model: str,
    served_model: object = None,
    api_key: object = None,
    timeout: object = 60.0,
    failover_after: object = 10.0,
    max_concurrency: object = 32,
) -> Servers:
    """Check what a user gave.

    Raises:
        ConfigurationError: A value is wrong; the message names it, unless it is the key.
    """
    given: Sequence[Any] = base_url if isinstance(base_url, list | tuple) else [base_url]
    if not given:
        raise ConfigurationError("base_url=[]; allowed: a URL, or a list of URLs")
    urls = tuple(dict.fromkeys(map(_url, given)))
    if served_model is not None and (not isinstance(served_model, str) or not served_model):
        raise ConfigurationError(f"served_model={served_model!r}; allowed: a name, or None")
    secret = getattr(api_key, "get_secret_value", None)
    key = secret() if callable(secret) else api_key
    if key is not None and not (isinstance(key, str) and key.isascii() and key.isprintable()):
        raise ConfigurationError("api_key is no text of printable ASCII characters")
    if type(max_concurrency) is not int or max_concurrency < 1:
        raise ConfigurationError(f"max_concurrency={max_concurrency!r}; allowed: a number from 1")
    return Servers(
        urls,
        served_model or model,
        key or None,
        _seconds("timeout", timeout),
        _seconds("failover_after", failover_after),
        max_concurrency,
    )


def _url(given: object) -> str:
    allowed = "allowed: a URL such as 'http://127.0.0.1:8000/v1', or a list of them"
    if not isinstance(given, str):
        raise ConfigurationError(f"base_url={given!r}; {allowed}")
    try:
        parts = urlsplit(given)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError(f"base_url={given!r}; {allowed}")
    if "@" in parts.netloc:
        # Not shown: it holds a password.
        raise ConfigurationError("base_url holds a user name; give a key as api_key=")
    if parts.query or parts.fragment:
        raise ConfigurationError(f"base_url={given!r} has more than a path; {allowed}")
    path = parts.path.rstrip("/") or "/v1"
    return f"{parts.scheme}://{parts.netloc}{path}"


def _seconds(name: str, given: object) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < math.inf:
        raise ConfigurationError(f"{name}={given!r}; allowed: seconds above 0")
    return float(given)
