"""Which requests are let in: their type, their size, their pace, and how many at once.

A body is read here, before anything else sees the request: what is too large is neither read nor
kept, and a client that sends slowly takes no place from the others. Then the request gets one of a
fixed number of places, or is turned away; nobody waits in a queue. In its place it may not stay
for ever, and if its client goes away its work is given up.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from langchain_safeguard.server.metrics import Metrics
from langchain_safeguard.server.problems import CLOSE, ApiError, response_to, too_busy
from langchain_safeguard.server.settings import Limits


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


class Admission:
    """Lets POST requests in; others have no body and take no time.

    Args:
        app: What they get to.
        limits: How much is let in.
        metrics: Where it is counted.
    """

    def __init__(self, app: ASGIApp, *, limits: Limits, metrics: Metrics) -> None:
        """Start empty."""
        self._app = app
        self._limits = limits
        self._metrics = metrics
        self._buffered = 0
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with an error, or pass on."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            self._check_head(Headers(scope=scope))
            await self._in_place(scope, receive, watched_send)
        except ApiError as error:
            if started:
                raise
            await response_to(error)(scope, receive, send)

    def _check_head(self, headers: Headers) -> None:
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise ApiError(
                415,
                "unsupported_content_type",
                "Send JSON, with the header 'Content-Type: application/json'.",
                headers=CLOSE,
            )
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise ApiError(
                415,
                "unsupported_content_encoding",
                "Send the body as it is, without a 'Content-Encoding'.",
                headers=CLOSE,
            )
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._limits.body_bytes:
            raise self._too_large()

    async def _in_place(self, scope: Scope, receive: Receive, send: Send) -> None:
        chunks: list[bytes] = []
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                await self._read(receive, chunks)
        except TimeoutError:
            raise ApiError(
                408,
                "body_too_slow",
                f"The body did not come within {self._limits.body_seconds:g} seconds.",
                headers=CLOSE,
            ) from None
        finally:
            self._buffered -= sum(map(len, chunks))
        if self._running >= self._limits.requests:
            self._metrics.shed()
            raise too_busy(
                "overloaded",
                f"The server is checking {self._limits.requests} requests already; try again.",
            )
        self._running += 1
        self._metrics.running(self._running)
        try:
            async with asyncio.timeout(self._limits.request_seconds):
                await _unless_gone(self._app, scope, b"".join(chunks), receive, send)
        except TimeoutError:
            raise too_busy(
                "timeout",
                f"No decision within {self._limits.request_seconds:g} seconds; try again, with "
                "fewer or shorter texts.",
            ) from None
        finally:
            self._running -= 1
            self._metrics.running(self._running)

    async def _read(self, receive: Receive, chunks: list[bytes]) -> None:
        size = 0
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > self._limits.body_bytes:
                raise self._too_large()
            if self._buffered + len(chunk) > self._limits.buffered_bytes:
                self._metrics.shed()
                raise too_busy(
                    "overloaded", "Too many requests are being read; try again.", headers=CLOSE
                )
            chunks.append(chunk)
            self._buffered += len(chunk)
            more = message.get("more_body", False)

    def _too_large(self) -> ApiError:
        return ApiError(
            413,
            "body_too_large",
            f"The body has more than {self._limits.body_bytes} bytes; send fewer or shorter texts "
            "per request.",
            headers=CLOSE,
        )


async def _unless_gone(
    app: ASGIApp, scope: Scope, body: bytes, receive: Receive, send: Send
) -> None:
    """Answer a request whose body was read; give up when its client goes away.

    Raises:
        ClientGoneError: It went away.
    """
    gone = asyncio.create_task(_gone(receive))
    first = True

    async def replay() -> Message:
        nonlocal first
        if first:
            first = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await asyncio.shield(gone)

    answer = asyncio.ensure_future(_run(app, scope, replay, send))
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ClientGoneError
        await answer
    finally:
        for task in (answer, gone):
            task.cancel()
        await asyncio.gather(answer, gone, return_exceptions=True)


async def _run(app: ASGIApp, *arguments: Any) -> None:
    await app(*arguments)


async def _gone(receive: Receive) -> Message:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return message
