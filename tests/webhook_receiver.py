"""A service on this machine that receives webhooks, and answers well, badly or not at all."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

Behaviour = bytes | Callable[[socket.socket, threading.Event], Any]


@dataclass
class Request:
    """One request, as it was received."""

    line: str
    headers: Mapping[str, str]
    body: bytes


def answer(
    body: bytes | str = b"",
    status: str = "200 OK",
    content_type: str = "application/json",
    **headers: str,
) -> bytes:
    """Make the bytes of a response."""
    body = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


@dataclass
class Receiver:
    """Answers each request with the next behaviour; the last one stays."""

    behaviours: list[Behaviour]
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> Self:
        self.stopped = threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}/hook"
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        # Closing alone does not wake up who waits in `accept`.
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            received = b""
            while b"\r\n\r\n" not in received:
                received += connection.recv(65536) or b"\r\n\r\n"
            head, _, body = received.partition(b"\r\n\r\n")
            line, *fields = head.decode().split("\r\n")
            headers = dict(field.split(": ", 1) for field in fields)
            lowered = {name.lower(): value for name, value in headers.items()}
            while len(body) < int(lowered["content-length"]):
                body += connection.recv(65536)
            self.requests.append(Request(line, headers, body))
            more = len(self.behaviours) > 1
            behaviour = self.behaviours.pop(0) if more else self.behaviours[0]
            if isinstance(behaviour, bytes):
                connection.sendall(behaviour)
            else:
                behaviour(connection, self.stopped)


def hang(connection: socket.socket, stopped: threading.Event) -> None:
    """Never answer."""
    stopped.wait(60)


def break_off(connection: socket.socket, stopped: threading.Event) -> None:
    """Hang up in the middle of a header."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-")


def drip(head: bytes) -> Behaviour:
    """Send these bytes and then, for ever, one more each moment."""

    def behave(connection: socket.socket, stopped: threading.Event) -> None:
        connection.sendall(head)
        while not stopped.wait(0.05):
            connection.sendall(b"x")

    return behave


def flood(connection: socket.socket, stopped: threading.Event) -> None:
    """Send a body that never ends, as fast as it is read."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
    while not stopped.is_set():
        connection.sendall(b" " * 65536)
