"""Servers as processes of their own, over real sockets.

Run as a program it serves guards that take their time or fail: `python -m tests.servers '{...}'`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[1]
TIMEOUT_S = 90.0


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """Wait for something to become true, and return it."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise TimeoutError(f"never: {what}")


def interruptible() -> None:
    """Let a new process hear Ctrl-C: what a shell runs in the background does not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class ServerProcess:
    """A server, started by a command that takes a free port and logs which.

    Args:
        arguments: What Python runs.
        environment: Variables besides those of this process.
    """

    def __init__(self, arguments: Sequence[str], **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            text=True,
            cwd=ROOT,
            preexec_fn=interruptible,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.port: int = self.event("listening")["port"]
        self.address = f"http://127.0.0.1:{self.port}"
        # Proxies of the environment have no business with a server on this machine.
        self.client = httpx.Client(base_url=self.address, timeout=TIMEOUT_S, trust_env=False)

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.process.kill()
        self.process.wait()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.lines.extend(self.process.stderr)

    @property
    def log(self) -> list[dict[str, Any]]:
        """Return all events so far; each line must be JSON."""
        return [json.loads(line) for line in [*self.lines]]

    def event(self, name: str, **facts: Any) -> dict[str, Any]:
        """Wait for an event with these facts, and return it."""

        def found() -> dict[str, Any] | None:
            for each in self.log:
                if each["event"] == name and facts.items() <= each.items():
                    return each
            assert self.process.poll() is None, self.lines
            return None

        result: dict[str, Any] = wait_until(found, f"the event {name!r} with {facts}")
        return result

    def ready(self) -> ServerProcess:
        """Wait until the guards are loaded."""
        self.event("ready")
        return self

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        """Send JSON."""
        return self.client.post(path, json=body, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        """Read an address."""
        return self.client.get(path, **options)

    def figure(self, sample: str) -> float:
        """Return one figure of /metrics, 0 if it is not there."""
        for line in self.get("/metrics").text.splitlines():
            name, _, value = line.rpartition(" ")
            if name == sample:
                return float(value)
        return 0.0

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        code = self.process.wait(TIMEOUT_S)
        self._reader.join(TIMEOUT_S)
        return code


def cli_server(*arguments: str | Path, **environment: str) -> ServerProcess:
    """Start the command line's server."""
    command = ["-m", "langchain_safeguard.cli", "serve", "--port", "0"]
    return ServerProcess([*command, *map(str, arguments)], **environment)


def faulty_server(**options: Any) -> ServerProcess:
    """Start a server with a guard that can be told how to behave.

    Args:
        options: `delay`: seconds that the guard takes. `fault`: it fails, and says this. `policy`:
            a file. `hang`: seconds that an escalation handler takes. `limits`: as `Limits`.
    """
    return ServerProcess(["-m", "tests.servers", json.dumps(options)])


def _main(options: dict[str, Any]) -> None:
    from langchain_safeguard import Guard
    from langchain_safeguard.server import Limits, Settings, create_app
    from langchain_safeguard.server.logs import configure_logging
    from langchain_safeguard.server.process import run
    from tests.word_guard import FaultyGuard, WordGuard

    def fault() -> None:
        raise RuntimeError(f"the text was {options['fault']}")

    async def ask_somebody(_: object) -> str:
        await asyncio.sleep(options.get("hang", 0.0))
        return "allow"

    guards: list[Guard] = [WordGuard(delay=options.get("delay", 0.0))]
    if "fault" in options:
        guards = [FaultyGuard(fault)]
    limits = Limits(**options.get("limits", {}))
    app = create_app(
        Settings(guards=guards, policies=[*filter(None, [options.get("policy")])], limits=limits),
        handlers=[ask_somebody],
    )
    configure_logging("debug")
    run(app, limits, host="127.0.0.1", port=0)


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
