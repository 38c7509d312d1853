"""Servers of other projects, as processes of their own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import httpx

from tests.servers import wait_until


class ForeignServer:
    """A server with OpenAI's API that is started by a command line.

    Args:
        command: Returns the command line for a port.
        log: Where what it prints goes.
        ready: What can be read once the model is loaded.
        environment: Variables besides those of this process.
    """

    def __init__(
        self,
        command: Callable[[int], Sequence[str]],
        log: Path,
        *,
        ready: str = "/health",
        **environment: str,
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/v1"
        self._ready = f"http://127.0.0.1:{port}{ready}"
        self._log = log
        with log.open("w") as file:
            self._process = subprocess.Popen(
                [*command(port)],
                env={**os.environ, **environment},
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        try:
            self._wait()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """End it at once, with its workers, which are of the same group."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _wait(self) -> None:
        for _ in range(4):
            try:
                wait_until(self._up, "the server is up")
            except TimeoutError:
                continue
            return
        raise TimeoutError(self._log.read_text()[-2000:])

    def _up(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()[-2000:]
        try:
            return httpx.get(self._ready, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False
