"""A real browser, driven over its debugging pipe: no driver and no package needed."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
"""Where the browser is, or `None`."""


class BrowserError(Exception):
    """The browser would not do what it was told."""


class Browser:
    """One page in a headless Chromium.

    Args:
        address: What to open.
        timeout_s: Seconds to wait for anything.
    """

    def __init__(self, address: str, *, timeout_s: float = 60.0) -> None:
        assert CHROMIUM is not None
        self._timeout_s = timeout_s
        self._number = 0
        self._buffer = b""
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        commands_out, self._commands = os.pipe()
        self._answers, answers_in = os.pipe()

        def as_3_and_4() -> None:
            # The numbers that `--remote-debugging-pipe` reads from and writes to.
            os.dup2(commands_out, 10)
            os.dup2(answers_in, 11)
            os.dup2(10, 3)
            os.dup2(11, 4)

        self._process = subprocess.Popen(
            [
                CHROMIUM,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--window-size=1100,1200",
                f"--user-data-dir={self._profile.name}",
                "--remote-debugging-pipe",
                "about:blank",
            ],
            preexec_fn=as_3_and_4,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands_out)
        os.close(answers_in)
        page = self._send("Target.createTarget", url=address)
        attached = self._send("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._commands)
        os.close(self._answers)
        self._profile.cleanup()

    def evaluate(self, script: str) -> Any:
        """Run JavaScript in the page and return its value."""
        answer = self._send("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, script: str) -> Any:
        """Wait until JavaScript gives something true, and return it."""
        deadline = time.monotonic() + self._timeout_s
        while time.monotonic() < deadline:
            # While the page is loading there is nowhere to run a script.
            with contextlib.suppress(BrowserError):
                if value := self.evaluate(script):
                    return value
            time.sleep(0.1)
        raise TimeoutError(f"never true: {script}; the page shows: {self.text}")

    def open(self, address: str) -> None:
        """Open another address in the page."""
        self._send("Page.navigate", url=address)

    def press(self, key: str) -> None:
        """Press and let go of a key, such as `"Tab"` or `"Enter"`."""
        code = {"Tab": 9, "Enter": 13}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self._send(
                "Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text
            )

    @contextlib.contextmanager
    def looking(self, *, width: int, scheme: str) -> Iterator[None]:
        """Look at the page with a width in pixels and a colour scheme, `"light"` or `"dark"`."""
        scheme_feature = {"name": "prefers-color-scheme", "value": scheme}
        size = {"width": width, "height": 1400, "deviceScaleFactor": 1, "mobile": width < 600}
        self._send("Emulation.setDeviceMetricsOverride", **size)
        self._send("Emulation.setEmulatedMedia", features=[scheme_feature])
        try:
            yield
        finally:
            self._send("Emulation.setEmulatedMedia", features=[])
            self._send("Emulation.clearDeviceMetricsOverride")

    def write(self, text: str) -> None:
        """Type into the element that has the focus."""
        self._send("Input.insertText", text=text)

    @property
    def text(self) -> str:
        """Return the text that the page shows."""
        return str(self.evaluate("document.body.innerText"))

    def screenshot(self, path: Path) -> None:
        """Save what the page looks like as a PNG."""
        path.write_bytes(base64.b64decode(self._send("Page.captureScreenshot")["data"]))

    def _send(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        command = {"id": self._number, "method": method, "params": params}
        if hasattr(self, "_session"):
            command["sessionId"] = self._session
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        while True:
            message = self._receive()
            if message.get("id") == self._number:
                if "error" in message:
                    raise BrowserError(message["error"]["message"])
                result: dict[str, Any] = message["result"]
                return result

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            read = os.read(self._answers, 1 << 16)
            if not read:
                raise ConnectionError("the browser ended")
            self._buffer += read
        message, _, self._buffer = self._buffer.partition(b"\0")
        parsed: dict[str, Any] = json.loads(message)
        return parsed
