"""Signatures of webhook requests: HMAC-SHA256 over the time and the body."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping

from langchain_safeguard.errors import ConfigurationError

TIMESTAMP = "Safeguard-Timestamp"
"""The header with the time of the request, in whole seconds since 1970 (UTC)."""
SIGNATURE = "Safeguard-Signature"
"""The header with `v1=` and the signature, in hexadecimal digits."""
_VERSION = "v1="
_SHORTEST = 16


def signed_headers(body: bytes, secret: str) -> dict[str, str]:
    """Return the headers that sign a body at this moment."""
    timestamp = str(int(time.time()))
    return {TIMESTAMP: timestamp, SIGNATURE: _VERSION + _signature(timestamp, body, secret)}


def verify_signature(
    body: bytes, headers: Mapping[str, str], secret: str, *, tolerance: float = 300.0
) -> bool:
    """Tell, where webhooks are received, whether a request is genuine, whole and recent.

    Within the tolerance a request can be sent again by whoever has seen it: it has the same
    `Idempotency-Key`, and deserves the same answer.

    Args:
        body: The body as it was received, before anything reads it.
        headers: The headers of the request; their case does not matter.
        secret: The secret that was given to `Webhook`.
        tolerance: How many seconds old, or ahead of this clock, a request may be.

    Raises:
        ConfigurationError: A value given here, not one of the request, is wrong.

    Example:
        ```python
        if not verify_signature(await request.body(), request.headers, secret):
            raise HTTPException(401)
        ```
    """
    read_secret(secret)
    if not isinstance(body, bytes):
        raise ConfigurationError(f"a body of type {type(body).__name__}; allowed: bytes, unread")
    given = {name.lower(): value for name, value in headers.items()}
    timestamp = given.get(TIMESTAMP.lower(), "")
    signature = given.get(SIGNATURE.lower(), "")
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        return False
    genuine = hmac.compare_digest(
        signature.encode("utf-8", "replace"),
        (_VERSION + _signature(timestamp, body, secret)).encode(),
    )
    return genuine and abs(time.time() - int(timestamp)) <= tolerance


def read_secret(secret: object) -> str:
    """Check that a secret is a text that is long enough not to be guessed.

    Raises:
        ConfigurationError: It is not; the message does not hold it.
    """
    if not isinstance(secret, str) or len(secret) < _SHORTEST:
        kind = "too short" if isinstance(secret, str) else f"a {type(secret).__name__}"
        raise ConfigurationError(
            f"secret is {kind}; allowed: a text of {_SHORTEST} characters or more, such as of "
            "secrets.token_urlsafe()"
        )
    return secret


def _signature(timestamp: str, body: bytes, secret: str) -> str:
    message = timestamp.encode() + b"." + body
    return hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()
