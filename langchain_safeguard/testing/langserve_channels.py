"""Channels of LangServe, over real HTTP: a uvicorn server in a thread, an httpx client here.

Not FastAPI's `TestClient`: with it, some versions of sse-starlette answer the second stream of a
process with an empty body and status 200, and a leak test then finds nothing to complain about.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from langchain_core.language_models import BaseChatModel

from langchain_safeguard.testing.channels import Channel, Probe
from langchain_safeguard.testing.event_channels import see_event
from langchain_safeguard.testing.transcript import (
    Attempt,
    ChannelUnavailableError,
    Transcript,
)

_PATH = "/app"
_START_S = 10.0
"""Seconds the server may take to start; it takes a tenth of one."""


@contextlib.contextmanager
def serving(probe: Probe, input_type: Any = "auto") -> Iterator[str]:
    """Serve the app on a free port of this machine; gives the address of its routes.

    Args:
        probe: What is tested.
        input_type: What LangServe accepts; by default what the app's types say.
    """
    import uvicorn
    from fastapi import FastAPI
    from langserve import add_routes

    app = FastAPI()
    # HTTP carries no callbacks or thread ids, so the caller's config goes along with the app.
    runnable = probe.runnable.with_config(probe.config) if probe.config else probe.runnable
    try:
        add_routes(app, runnable, path=_PATH, input_type=input_type)
    except Exception as error:
        # Some runnables' types have no JSON schema; then nobody can serve them.
        raise ChannelUnavailableError(
            f"LangServe cannot serve this runnable ({type(error).__name__})"
        ) from error
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        # Lifespan is off because LangServe prints a banner on start-up, and log_config because
        # uvicorn would otherwise rearrange the process's logging.
        settings = uvicorn.Config(app, lifespan="off", log_config=None)
        server = uvicorn.Server(settings)
        thread = threading.Thread(target=server.run, args=([door],), daemon=True)
        thread.start()
        try:
            _await_start(server, thread)
            yield f"http://127.0.0.1:{door.getsockname()[1]}{_PATH}"
        finally:
            server.should_exit = True
            thread.join(_START_S)


def _await_start(server: Any, thread: threading.Thread) -> None:
    deadline = time.monotonic() + _START_S
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise RuntimeError("the LangServe test server did not start")
        time.sleep(0.01)


def _body(probe: Probe) -> Any:
    """The input as JSON, spelled as LangServe's own client spells it."""
    from langserve.serialization import WellKnownLCSerializer

    value = probe.input
    if isinstance(probe.bound, BaseChatModel):
        value = probe.bound._convert_input(value).to_messages()
    return json.loads(WellKnownLCSerializer().dumps(value))


def _post(probe: Probe, see: Attempt, endpoint: str, body: dict[str, Any]) -> str:
    """Send one request; gives the body of an answer, and "" for anything else, noted as such."""
    status, text = _send(probe, see, endpoint, body, "auto")
    if status in (422, 500):
        # Chains often state narrower types than they take (then /batch says 500 instead of 422).
        # People who serve them use `with_types`; so does this.
        status, text = _send(probe, see, endpoint, body, Any)
    if status == 422:
        raise ChannelUnavailableError("LangServe rejects this input for this runnable (HTTP 422)")
    if status != 200:
        see("error body", text)
        see.see_refusal(f"HTTP {status}")
        return ""
    if not text.strip():
        see.problem("HTTP 200 with an empty body")
    return text


def _send(
    probe: Probe, see: Attempt, endpoint: str, body: dict[str, Any], input_type: Any
) -> tuple[int, str]:
    """Send one request; gives the status and as much of the body as came."""
    import httpx

    received = bytearray()
    # Proxies of the environment have no business with a server on this machine.
    with (
        serving(probe, input_type) as address,
        httpx.Client(trust_env=False, timeout=probe.timeout_s) as client,
        client.stream("POST", f"{address}/{endpoint}", json=body) as response,
    ):
        try:
            for part in response.iter_bytes():
                received += part
        except httpx.RemoteProtocolError:
            # An exception in the middle of a stream cuts it off; what came before it counts.
            see.see_refusal("stream cut off")
    return response.status_code, received.decode("utf-8", "replace")


def _whole(endpoint: str) -> Callable[[Probe, Transcript], None]:
    def run(probe: Probe, transcript: Transcript) -> None:
        with transcript.attempt(f"POST /{endpoint}") as see:
            value = _body(probe)
            body = {"inputs": [value, value]} if endpoint == "batch" else {"input": value}
            text = _post(probe, see, endpoint, body)
            if text:
                see("response", json.loads(text))

    return run


def _streamed(endpoint: str) -> Callable[[Probe, Transcript], None]:
    def run(probe: Probe, transcript: Transcript) -> None:
        with transcript.attempt(f"POST /{endpoint}") as see:
            text = _post(probe, see, endpoint, {"input": _body(probe)})
            for event, data in server_sent_events(text):
                _see_sent(see, event, data)

    return run


def server_sent_events(text: str) -> Iterator[tuple[str, str]]:
    """Read a stream of server-sent events: (event, data), comments left out."""
    event, data = "message", list[str]()
    for line in [*text.splitlines(), ""]:
        name, _, value = line.partition(":")
        if name == "event":
            event = value.strip()
        elif name == "data":
            data.append(value.removeprefix(" "))
        elif not line:
            if data:
                yield event, "\n".join(data)
            event, data = "message", []


def _see_sent(see: Attempt, event: str, data: str) -> None:
    """Note one server-sent event; run logs and events are joined as those of the app itself."""
    value = json.loads(data)
    if event == "error":
        see("error event", value)
        see.see_refusal("error event")
    elif isinstance(value, dict) and "ops" in value:
        for op in value["ops"]:
            see("op", op.get("value"), source=str(op.get("path")))
    elif isinstance(value, dict) and "event" in value and "data" in value:
        see_event(see, value)
    else:
        see(event, value)


_NEEDS = ("langserve", "fastapi", "uvicorn", "httpx", "sse_starlette")

LANGSERVE_CHANNELS = tuple(
    Channel(f"langserve_{endpoint}", "langserve", run=run(endpoint), needs=_NEEDS)
    for endpoint, run in (
        ("invoke", _whole),
        ("batch", _whole),
        ("stream", _streamed),
        ("stream_log", _streamed),
        ("stream_events", _streamed),
    )
)
