"""What is seen from outside of every request: its id, its time, its outcome."""

from __future__ import annotations

import logging
import re
import time
import uuid
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from langchain_safeguard.server.admission import ClientGoneError
from langchain_safeguard.server.logs import REQUEST_ID, log
from langchain_safeguard.server.metrics import Metrics
from langchain_safeguard.server.problems import ApiError, response_to

FACTS = "langchain_safeguard.facts"
"""The key of the scope under which a route leaves what its request's log line should say."""

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_GIVEN_ID = re.compile(r"[\w.:-]{8,80}", re.ASCII)
_POLLED = {"/healthz", "/readyz", "/metrics"}
"""What machines ask for every few seconds."""
_CLIENT_GONE = 499
"""nginx's number for a client that went away before its answer."""


class Observing:
    """Gives each request an id, counts it, writes one log line, and catches what was not caught.

    Args:
        app: What answers.
        metrics: Where it is counted.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        """Store."""
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and look."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin = time.perf_counter()
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _GIVEN_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"
        facts: dict[str, Any] = {}
        scope[FACTS] = facts
        status = 0

        async def watched_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                # Answers may hold texts: no cache is to keep them.
                headers.setdefault("cache-control", "no-store")
                headers["x-content-type-options"] = "nosniff"
            await send(message)

        token = REQUEST_ID.set(request_id)
        try:
            await self._app(scope, receive, watched_send)
        except ClientGoneError:
            status = _CLIENT_GONE
            self._metrics.abandoned()
        except Exception as error:
            # Here it ends: its message may hold what was checked, and the server would log it.
            facts["error"] = type(error).__name__
            if status == 0:
                problem = ApiError(
                    500,
                    "internal_error",
                    "The server failed; nothing was decided. Its log has more under this "
                    f"request id: {request_id}.",
                )
                await response_to(problem)(scope, receive, watched_send)
        finally:
            seconds = time.perf_counter() - begin
            endpoint = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.request(endpoint, method, status, seconds)
            log(
                "request",
                _level(endpoint, status),
                method=method,
                endpoint=endpoint,
                status=status,
                ms=round(seconds * 1000, 1),
                **facts,
            )
            REQUEST_ID.reset(token)


def _level(endpoint: str, status: int) -> int:
    if status >= 500 and status != 503:
        return logging.ERROR
    return logging.DEBUG if endpoint in _POLLED else logging.INFO
