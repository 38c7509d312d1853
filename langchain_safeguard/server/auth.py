"""Who may ask: API keys, as OpenAI's clients send them."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Collection, Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from langchain_safeguard.server.problems import CLOSE, ApiError, response_to

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
        headers = {"www-authenticate": "Bearer", **CLOSE}
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


class OwnSite:
    """Turns away what a web page of somebody else asks through its visitor's browser.

    Such a page could bring what lets the visitor in: an address that only they reach, a proxy's
    cookie. The browser says where a request comes from; whoever is no browser says nothing, and
    passes. A page whose own name is made to point here is taken for ours by the browser, but it
    says that name in its `Host` header, which a server for this machine alone does not answer to.

    Args:
        app: What others get to.
        local_only: Whether only loopback addresses and `localhost` are names of this server.
    """

    def __init__(self, app: ASGIApp, *, local_only: bool) -> None:
        """Store."""
        self._app = app
        self._local_only = local_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with 403, or pass on."""
        if scope["type"] == "http":
            problem = self._problem(scope["method"], Headers(scope=scope))
            if problem is not None:
                await response_to(problem)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _problem(self, method: str, headers: Headers) -> ApiError | None:
        host = _name(headers.get("host", ""))
        if self._local_only and not is_loopback(host):
            return _forbidden(
                "foreign_host",
                "This server has no API keys and only answers to localhost; give it keys, or "
                "--no-auth.",
            )
        # What is only read, no other site's page gets to see.
        if method not in ("GET", "HEAD") and _is_foreign(headers, host):
            return _forbidden(
                "foreign_origin", "This server takes nothing from web pages of other sites."
            )
        return None


def _is_foreign(headers: Headers, host: str) -> bool:
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    # Older browsers, and pages without encryption. Ports are not compared: proxies drop them.
    origin = headers.get("origin")
    return origin is not None and _name(origin.partition("://")[2]) != host


def _name(address: str) -> str:
    """Return an address without its port."""
    return _PORT.sub("", address).strip("[]").lower()


def _forbidden(code: str, message: str) -> ApiError:
    return ApiError(403, code, message, headers=CLOSE)


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
