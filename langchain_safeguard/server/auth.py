"""Who may ask: API keys, as OpenAI's clients send them."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Collection, Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from langchain_safeguard.server.problems import ApiError, response_to

_PORT = re.compile(r":\d*$")


class ApiKeys:
    """Lets requests pass that bring one of the keys.

    Args:
        app: What they get to.
        keys: The keys; none means that everybody may pass.
        open_paths: What needs no key.
    """

    def __init__(self, app: ASGIApp, *, keys: Sequence[str], open_paths: Collection[str]) -> None:
        """Store hashes: compared in constant time, they do not tell how long a key is either."""
        self._app = app
        self._hashes = [_hash(key) for key in keys]
        self._open = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with 401, or pass on."""
        if scope["type"] == "http" and self._hashes and scope["path"] not in self._open:
            problem = self._problem(Headers(scope=scope).get("authorization", ""))
            if problem is not None:
                await response_to(problem)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _problem(self, authorization: str) -> ApiError | None:
        # The body is not read: the connection cannot be used for another request.
        headers = {"www-authenticate": "Bearer", "connection": "close"}
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            return ApiError(
                401,
                "missing_api_key",
                "This server needs an API key; send it as 'Authorization: Bearer KEY'.",
                headers=headers,
            )
        given = _hash(key.strip())
        # All are compared, so that the time does not tell which of them was close.
        matches = [hmac.compare_digest(given, known) for known in self._hashes]
        if any(matches):
            return None
        return ApiError(401, "invalid_api_key", "Incorrect API key provided.", headers=headers)


class LocalNames:
    """Lets requests pass that call this machine by a name of its own.

    A server without keys that only listens on this machine could still be read by a web page of
    somebody else: the page's own name is made to point here, and the browser takes it for that
    page's server. Such a request says that name in its `Host` header.

    Args:
        app: What they get to.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Store."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with 403, or pass on."""
        if scope["type"] == "http":
            host = _PORT.sub("", Headers(scope=scope).get("host", "")).strip("[]")
            if not is_loopback(host):
                problem = ApiError(
                    403,
                    "foreign_host",
                    "This server has no API keys and only answers to localhost; give it keys, or "
                    "--no-auth.",
                    headers={"connection": "close"},
                )
                await response_to(problem)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def is_loopback(host: str) -> bool:
    """Tell whether a name or an address is only this machine's own."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
