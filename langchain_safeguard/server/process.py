"""Running the application as a process: uvicorn, its timeouts, and signals."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from types import FrameType
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from langchain_safeguard.errors import SafeguardError
from langchain_safeguard.server.logs import log
from langchain_safeguard.server.metrics import Metrics
from langchain_safeguard.server.problems import CLOSE, response_to, too_busy
from langchain_safeguard.server.registry import Registry
from langchain_safeguard.server.settings import Limits


def run(app: FastAPI, limits: Limits, *, host: str, port: int) -> None:
    """Serve until a signal comes, then finish what was accepted.

    SIGTERM and SIGINT end it, a second SIGINT at once; SIGHUP reloads the policies.

    Raises:
        SafeguardError: The address cannot be had, or a guard cannot be loaded.
    """
    listener = _listener(host, port)
    config = uvicorn.Config(
        app,
        http=_protocol(limits, app.state.metrics),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(limits.body_seconds + limits.request_seconds) + 1,
    )
    registry: Registry = app.state.registry
    # uvicorn raises the signal that ended it once more; it has done its work by then.
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        _Server(config, registry).run(sockets=[listener])
    finally:
        signal.signal(signal.SIGTERM, before)
    if registry.failure is not None:
        raise registry.failure


class _Server(uvicorn.Server):
    """A server that reloads policies on SIGHUP, and ends when its guards cannot be loaded."""

    def __init__(self, config: uvicorn.Config, registry: Registry) -> None:
        super().__init__(config)
        self._registry = registry

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        address, port = (sockets or [])[0].getsockname()[:2]
        name = f"[{address}]" if ":" in address else address
        log("listening", url=f"http://{name}:{port}", port=port)
        if hasattr(signal, "SIGHUP"):
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(
                signal.SIGHUP, lambda: loop.run_in_executor(None, self._registry.reload)
            )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._registry.is_loading or (self.should_exit and sig == signal.SIGINT):
            # No text was accepted yet, or whoever presses Ctrl-C twice will not wait. A model that
            # loads or computes cannot be stopped: Python's own end would wait for it, or abort.
            os._exit(0 if sig == signal.SIGTERM else 128 + sig)
        super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self._registry.failure is not None


def _listener(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise SafeguardError(
            f"cannot listen on {host} port {port}: {error.strerror or error}; choose another "
            "with --host or --port"
        ) from None
    return listener


def _protocol(limits: Limits, metrics: Metrics) -> type[asyncio.Protocol]:
    """Return uvicorn's HTTP protocol with a deadline for headers, which it has none for.

    It has a limit of connections, too, but does not say when to come again.
    """
    busy = too_busy("overloaded", "There are too many connections; try again.", headers=CLOSE)

    async def turn_away(scope: Scope, receive: Receive, send: Send) -> None:
        metrics.shed()
        await response_to(busy)(scope, receive, send)

    class DeadlineProtocol(H11Protocol):
        """Closes connections that take too long to say what they want."""

        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._set_deadline()
            if len(self.connections) > limits.connections:
                self.app = turn_away

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
                self._set_deadline()
            else:
                self._drop_deadline()

        def connection_lost(self, exc: Exception | None) -> None:
            self._drop_deadline()
            super().connection_lost(exc)

        def _set_deadline(self) -> None:
            # Not moved by what trickles in.
            if self._deadline is None:
                self._deadline = self.loop.call_later(limits.head_seconds, self.transport.close)

        def _drop_deadline(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

    return DeadlineProtocol
