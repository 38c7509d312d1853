"""One server: requests to it, and whether it can be relied on at the moment."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from langchain_safeguard.engines.remote.dialect import Dialect
from langchain_safeguard.errors import (
    GuardConnectionError,
    GuardError,
    GuardOutputError,
)

_LONGEST = 8 << 20
"""The most bytes of an answer that are read."""
_LONGEST_REST = 60.0
"""The most seconds that a server is left alone because it asks for it."""
_FULL, _FULL_REST = "Context size has been exceeded", 0.25
"""What llama-server says if its slots share too small a context, and for how long to leave it."""
_FAILURES = 3
"""After how many failures in a row a server is asked nothing more until it is well again."""


class Trouble(Exception):
    """A server did not do its part; another one, or the same one later, may.

    Attributes:
        error: What is raised if nobody does.
        rest: For how many seconds the server wants to be left alone.
    """

    def __init__(self, error: GuardError, *, rest: float | None = None) -> None:
        """Store."""
        super().__init__(str(error))
        self.error = error
        self.rest = rest


class Refusal(Exception):
    """A server refuses what it is asked, and always will.

    Attributes:
        status: The HTTP status.
        message: The server's own words. They may repeat what it was asked.
    """

    def __init__(self, status: int, message: str) -> None:
        """Store."""
        super().__init__(f"HTTP {status}")
        self.status = status
        self.message = message


class Replica:
    """One server.

    Args:
        url: Where its API begins.
        client: Makes the requests.

    Attributes:
        dialect: What it was found to be able to do; `None` before that.
        busy: How many questions it is at work on.
        closed: Whether it is asked anything: it is well, as far as is known.
        rests_until: Until when it wants to be left alone (monotonic clock).
    """

    def __init__(self, url: str, client: httpx.AsyncClient, dialect: Dialect | None) -> None:
        """Store."""
        self.url = url
        self.dialect = dialect
        self.busy = 0
        self.closed = dialect is not None
        self.rests_until = 0.0
        self._client = client
        self._failures = 0

    def succeeded(self) -> None:
        """Note that it did what it was asked."""
        self._failures = 0

    def failed(self, trouble: Trouble) -> bool:
        """Note that it did not; tell whether it is to be asked nothing more for now."""
        if trouble.rest is not None:
            # Busy, but well.
            self.rests_until = time.monotonic() + trouble.rest
            return False
        self._failures += 1
        if self._failures < _FAILURES or not self.closed:
            return False
        self.closed = False
        return True

    def heal(self, dialect: Dialect) -> None:
        """Note that it is well again."""
        self.dialect, self.closed, self._failures = dialect, True, 0

    async def get(self, path: str) -> Any:
        """Fetch something; see `post`."""
        return await self._request("GET", path, None)

    async def post(self, path: str, body: Any) -> Any:
        """Send something and return the answer's JSON.

        Raises:
            Trouble: It cannot be reached, is busy or broken, or its answer is no JSON.
            Refusal: It does not take what was sent.
        """
        return await self._request("POST", path, body)

    async def _request(self, method: str, path: str, body: Any) -> Any:
        status, payload, rest, failure = 0, bytearray(), 0.0, ""
        try:
            async with self._client.stream(method, f"{self.url}/{path}", json=body) as response:
                status, rest = response.status_code, _rest(response.headers.get("retry-after"))
                async for chunk in response.aiter_bytes():
                    payload += chunk
                    if len(payload) > _LONGEST:
                        break
        except Exception as error:
            # Such errors hold the request, and with it what users wrote: their type is enough.
            failure = type(error).__name__
        if failure:
            raise Trouble(GuardConnectionError(f"{self.url} cannot be asked: {failure}"))
        if status in (429, 503):
            busy = GuardConnectionError(f"{self.url} is busy (HTTP {status})")
            raise Trouble(busy, rest=rest if status == 429 else rest or None)
        found = _json(bytes(payload)) if len(payload) <= _LONGEST else None
        if status == 500 and _FULL in _message(found):
            raise Trouble(
                GuardConnectionError(
                    f"{self.url} has no room for so many prompts at a time; give it more context "
                    "(--ctx-size), or lower max_concurrency="
                ),
                rest=_FULL_REST,
            )
        if status in (400, 404, 413, 422):
            raise Refusal(status, _message(found))
        if status != 200:
            hint = "; it wants another api_key" if status in (401, 403) else ""
            raise Trouble(GuardConnectionError(f"{self.url} answers HTTP {status}{hint}"))
        if found is None:
            raise Trouble(GuardOutputError(f"{self.url} sent something that is no JSON object"))
        return found


def _json(payload: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _message(found: dict[str, Any] | None) -> str:
    inner = (found or {}).get("error", found)
    message = inner.get("message") or inner.get("detail") if isinstance(inner, dict) else inner
    return str(message or "")[:300]


def _rest(header: str | None) -> float:
    """Return how many seconds `Retry-After` asks for."""
    if header is None:
        return 0.0
    try:
        seconds = float(header)
    except ValueError:
        try:
            at = parsedate_to_datetime(header)
            seconds = (at - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return 0.0
    # Not a number compares as false: then it asks for nothing.
    return min(seconds, _LONGEST_REST) if seconds > 0 else 0.0
