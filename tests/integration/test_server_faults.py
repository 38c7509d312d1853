"""The server under bad input, bad clients, bad guards and too much work: closed, clear, alive."""

from __future__ import annotations

import contextlib
import gzip
import json
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("fastapi")

import openai
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.servers import ServerProcess, faulty_server, wait_until

SECRET = "the quick brown secret"
JSON = {"content-type": "application/json"}
LIMITS = {
    "body_bytes": 1 << 20,
    "buffered_bytes": 4 << 20,
    "texts": 100,
    "characters": 5000,
    "requests": 4,
    "head_seconds": 1.0,
    "body_seconds": 1.5,
    "guard_seconds": 20.0,
    "request_seconds": 30.0,
}


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with faulty_server(limits=LIMITS) as process:
        yield process.ready()
        assert process.end() == 0
        written = "".join(process.lines)
        assert SECRET not in written and "Traceback" not in written


@pytest.fixture(autouse=True)
def _alive(server: ServerProcess) -> Iterator[None]:
    yield
    response = server.post("/v1/moderations", {"input": ["a bomb", "bread"]})
    assert [r["flagged"] for r in response.json()["results"]] == [True, False]


def problem(response: httpx.Response) -> dict[str, Any]:
    """The error in the answer: of OpenAI's shape, with something to say, without what was sent."""
    assert {*response.json()} == {"error"}
    error: dict[str, Any] = response.json()["error"]
    assert {*error} == {"message", "type", "param", "code"}
    assert error["message"] and error["code"]
    assert SECRET not in response.text
    assert "x-request-id" in response.headers
    return error


def raw(server: ServerProcess, path: str, content: bytes, **headers: str) -> httpx.Response:
    return server.client.post(path, content=content, headers={**JSON, **headers})


def _message(content: object, role: str = "user") -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content}]}


MODERATIONS, GUARD = "/v1/moderations", "/v1/guard"


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "param"),
    [
        (MODERATIONS, b"", 400, "invalid_json", None),
        (MODERATIONS, b'{"input": "' + SECRET.encode(), 400, "invalid_json", None),
        (MODERATIONS, b'{"input": "\xff\xfe"}', 400, "invalid_json", None),
        (MODERATIONS, b"[" * 50_000, 400, "invalid_json", None),
        (MODERATIONS, b'{"input": ' + b"9" * 5000 + b"}", 400, "invalid_json", None),
        (MODERATIONS, {}, 400, "invalid_value", "input"),
        (MODERATIONS, [SECRET], 400, "invalid_value", None),
        (MODERATIONS, SECRET, 400, "invalid_value", None),
        (MODERATIONS, {"input": 5}, 400, "invalid_value", "input"),
        (MODERATIONS, {"input": None}, 400, "invalid_value", "input"),
        (MODERATIONS, {"input": {"text": SECRET}}, 400, "invalid_value", "input"),
        (MODERATIONS, {"input": [SECRET, 5]}, 400, "invalid_value", "input"),
        (MODERATIONS, {"input": [{"type": SECRET}]}, 400, "invalid_value", "input"),
        (MODERATIONS, {"input": [SECRET, {"type": "text", "text": SECRET}]}, 400, None, "input"),
        (MODERATIONS, {"input": []}, 400, "empty_input", "input"),
        (MODERATIONS, {"input": [SECRET] * 10_000}, 400, "too_many_texts", "input"),
        (MODERATIONS, {"input": SECRET * 500}, 400, "too_many_characters", "input"),
        (MODERATIONS, {"input": [SECRET * 5] * 50}, 400, "too_many_characters", "input"),
        (MODERATIONS, {"input": "a", "model": SECRET}, 404, "model_not_found", "model"),
        (MODERATIONS, {"input": "a", "policy": SECRET}, 404, "policy_not_found", "policy"),
        (MODERATIONS, {"input": "a", "side": SECRET}, 400, "invalid_value", "side"),
        (MODERATIONS, {"input": "a", "extra": SECRET}, 400, "unknown_parameter", "extra"),
        (MODERATIONS, {"input": "a", SECRET: 1}, 400, "unknown_parameter", None),
        (MODERATIONS, {"input": "a" * (1 << 20)}, 413, "body_too_large", None),
        (GUARD, {"messages": []}, 400, "invalid_value", "messages"),
        (GUARD, {"messages": SECRET}, 400, "invalid_value", "messages"),
        (GUARD, {"messages": [SECRET]}, 400, "invalid_value", None),
        (GUARD, {"messages": [{}]}, 400, "unreadable_input", "messages"),
        (GUARD, _message(SECRET, role=SECRET), 400, "unreadable_input", "messages"),
        (GUARD, _message({"nested": SECRET}), 400, "unreadable_input", "messages"),
        (GUARD, {**_message(SECRET), "side": "output"}, 400, "unreadable_input", "messages"),
        (GUARD, {**_message(SECRET), "guard": SECRET}, 404, "guard_not_found", "guard"),
        (GUARD, _message(SECRET * 500), 400, "too_many_characters", "messages"),
        (GUARD, {"messages": _message("a")["messages"] * 101}, 400, "too_many_messages", None),
        (GUARD, b'{"messages": ' + b"[" * 500 + b"]" * 500 + b"}", 400, "invalid_value", None),
        ("/v1/nothing", {"input": SECRET}, 404, "not_found", None),
        ("/healthz", {"input": SECRET}, 405, "method_not_allowed", None),
    ],
)
def test_wrong_requests(
    server: ServerProcess, path: str, body: Any, status: int, code: str | None, param: str | None
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = raw(server, path, content)
    error = problem(response)
    assert response.status_code == status, error
    assert code is None or error["code"] == code
    assert param is None or error["param"] == param
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_wrong_content_type(server: ServerProcess, kind: str) -> None:
    response = raw(server, MODERATIONS, b'{"input": "a"}', **{"content-type": kind})
    assert response.status_code == 415
    assert "application/json" in problem(response)["message"]


def test_a_packed_body_is_not_unpacked(server: ServerProcess) -> None:
    bomb = gzip.compress(b'{"input": "' + b" " * 50_000_000 + b'"}')
    response = raw(server, MODERATIONS, bomb, **{"content-encoding": "gzip"})
    assert response.status_code == 415
    assert "Content-Encoding" in problem(response)["message"]


def test_limits_are_stated(server: ServerProcess) -> None:
    for body, limit in (({"input": ["a"] * 101}, "100"), ({"input": "a" * 5001}, "5000")):
        assert limit in problem(server.post(MODERATIONS, body))["message"]


KEYS = (
    *("role", "content", "type", "text", "tool_calls", "function", "name", "id", "arguments"),
    *("messages", "input", "image_url", "tool_call_id", "kwargs", "lc"),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=8,
)
messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "tool", "system", "developer"])},
    optional=dict.fromkeys(
        ("content", "tool_calls", "tool_call_id", "name", "function_call", "id", "type"),
        json_values,
    ),
)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.tuples(st.just(MODERATIONS), st.fixed_dictionaries({"input": json_values}))
    | st.tuples(
        st.just(GUARD),
        st.fixed_dictionaries(
            {"messages": st.lists(messages | json_values, max_size=3)},
            optional={"side": st.sampled_from(["input", "output", "tool_input", "tool_output"])},
        ),
    )
)
def test_whatever_is_sent_is_judged_or_refused(
    server: ServerProcess, request_: tuple[str, Any]
) -> None:
    path, body = request_
    response = raw(server, path, json.dumps(body).encode())
    assert response.status_code in (200, 400), (response.text, body)


def _memory(server: ServerProcess) -> int:
    """The most memory the server ever had, in KiB."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_100_megabytes_is_not_kept(server: ServerProcess, chunked: bool) -> None:
    before = _memory(server)
    piece = b"a" * 65536

    def content() -> Iterator[bytes]:
        for _ in range(1600):
            yield piece

    headers = {} if chunked else {"content-length": str(len(piece) * 1600)}
    response = server.client.post(MODERATIONS, content=content(), headers={**JSON, **headers})
    assert response.status_code == 413
    assert problem(response)["code"] == "body_too_large"
    assert _memory(server) - before < 20_000


def _connect(server: ServerProcess) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=30)


def _head(length: int = 1000) -> bytes:
    return (
        f"POST {MODERATIONS} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


def _until_closed(connection: socket.socket) -> bytes:
    received = b""
    with connection:
        while piece := connection.recv(65536):
            received += piece
    return received


class TestSlowClients:
    def test_headers(self, server: ServerProcess) -> None:
        begin = time.monotonic()
        silent, trickling = _connect(server), _connect(server)
        for letter in "POST":
            trickling.send(letter.encode())
            time.sleep(0.1)
        assert _until_closed(silent) == _until_closed(trickling) == b""
        assert time.monotonic() - begin < 20

    def test_headers_of_a_second_request(self, server: ServerProcess) -> None:
        connection = _connect(server)
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"200 OK" in connection.recv(65536)
        connection.sendall(b"GET /heal")
        assert b"200 OK" not in _until_closed(connection)

    def test_a_body(self, server: ServerProcess) -> None:
        # As many as there are places: nobody waits for them.
        slow = [_connect(server) for _ in range(8)]
        for connection in slow:
            connection.sendall(_head() + b'{"input": ')
        assert server.post(MODERATIONS, {"input": "bread"}).status_code == 200
        for connection in slow:
            assert b"408 Request Timeout" in _until_closed(connection)

    def test_headers_without_end(self, server: ServerProcess) -> None:
        connection = _connect(server)
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX-A: ")
        with contextlib.suppress(ConnectionError), connection:
            while True:
                connection.sendall(b"a" * 65536)

    def test_a_client_that_leaves_in_its_body(self, server: ServerProcess) -> None:
        before = server.figure("safeguard_requests_abandoned_total")
        for _ in range(10):
            with _connect(server) as connection:
                connection.sendall(_head() + b'{"input": ')
        wait_until(
            lambda: server.figure("safeguard_requests_abandoned_total") == before + 10,
            "the requests are given up",
        )


class TestTooManyConnections:
    def test_they_are_told_when_to_come_again(self) -> None:
        limits = {**LIMITS, "connections": 10, "head_seconds": 30.0}
        with faulty_server(limits=limits) as server:
            server.ready()
            silent = [_connect(server) for _ in range(12)]
            connection = _connect(server)
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            answer = _until_closed(connection)
            assert answer.startswith(b"HTTP/1.1 503 ") and b"retry-after: 1" in answer.lower()
            assert b"too many connections" in answer
            for each in silent:
                each.close()
            wait_until(lambda: b" 200 OK" in _asked(server), "there is room again")
            assert server.figure("safeguard_requests_shed_total") >= 1

    def test_one_connection_may_bring_several_requests_at_once(self, server: ServerProcess) -> None:
        with _connect(server) as connection:
            body = b'{"input": "a bomb"}'
            connection.sendall((_head(len(body)) + body) * 3)
            received = b""
            while received.count(b'"flagged":true') < 3:
                received += connection.recv(65536)


def _asked(server: ServerProcess) -> bytes:
    connection = _connect(server)
    connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    return _until_closed(connection)


@pytest.fixture(scope="module")
def busy() -> Iterator[ServerProcess]:
    with faulty_server(delay=1.0, limits={**LIMITS, "requests": 2}) as process:
        yield process.ready()


class TestTooMuchWork:
    def test_it_is_turned_away(self, busy: ServerProcess) -> None:
        with ThreadPoolExecutor(8) as pool:
            bodies = [{"input": "a bomb"}] * 8
            answers = [*pool.map(lambda body: busy.post(MODERATIONS, body), bodies)]
        admitted = [a for a in answers if a.status_code == 200]
        shed = [a for a in answers if a.status_code == 503]
        assert 2 <= len(admitted) < 8 and len(admitted) + len(shed) == 8
        assert all(answer.json()["results"][0]["flagged"] for answer in admitted)
        for answer in shed:
            assert problem(answer)["code"] == "overloaded"
            assert answer.headers["retry-after"] == "1"
        assert busy.figure("safeguard_requests_shed_total") >= len(shed)

    def test_the_official_client_gets_through(self, busy: ServerProcess) -> None:
        client = openai.OpenAI(base_url=f"{busy.address}/v1", api_key="none", max_retries=20)
        with ThreadPoolExecutor(6) as pool:
            found = pool.map(lambda _: client.moderations.create(input="a bomb"), range(6))
            assert all(response.results[0].flagged for response in found)

    def test_whoever_leaves_makes_room(self, busy: ServerProcess) -> None:
        before = busy.figure("safeguard_requests_abandoned_total")
        body = b'{"input": "bread"}'
        for _ in range(2):
            with _connect(busy) as connection:
                connection.sendall(_head(len(body)) + body)
                wait_until(lambda: busy.figure("safeguard_requests_running") > 0, "it is checked")
        wait_until(
            lambda: busy.figure("safeguard_requests_abandoned_total") == before + 2,
            "both are given up",
        )
        assert busy.figure("safeguard_requests_running") == 0

    def test_shutdown_finishes_what_was_accepted(self) -> None:
        with faulty_server(delay=1.0, limits=LIMITS) as server, ThreadPoolExecutor(4) as pool:
            server.ready()
            asked = [pool.submit(server.post, MODERATIONS, {"input": "a bomb"}) for _ in range(4)]
            wait_until(lambda: server.figure("safeguard_requests_running") == 4, "all are running")
            assert server.end() == 0
            answers = [each.result() for each in asked]
        assert all(answer.json()["results"][0]["flagged"] for answer in answers)

    def test_a_second_interrupt_waits_for_nothing(self) -> None:
        with faulty_server(delay=25.0, limits={**LIMITS, "guard_seconds": 28.0}) as server:
            body = b'{"input": "a bomb"}'
            with _connect(server.ready()) as connection:
                connection.sendall(_head(len(body)) + body)
                wait_until(
                    lambda: server.figure("safeguard_requests_running") == 1, "it is checked"
                )
                begin = time.monotonic()
                server.process.send_signal(signal.SIGINT)
                # The first one has come when nobody else is let in.
                wait_until(lambda: not _listens(server), "the server ends")
                assert server.end(signal.SIGINT) == 130
            assert time.monotonic() - begin < 20
            assert "Traceback" not in "".join(server.lines)


def _listens(server: ServerProcess) -> bool:
    try:
        _connect(server).close()
    except ConnectionError:
        return False
    return True


class TestGuardsThatFail:
    @pytest.mark.parametrize(
        "options",
        [
            {"fault": SECRET, "limits": LIMITS},
            {"delay": 60.0, "limits": {**LIMITS, "guard_seconds": 0.5}},
        ],
        ids=["raises", "hangs"],
    )
    def test_nothing_passes(self, options: dict[str, Any]) -> None:
        with faulty_server(**options) as server:
            server.ready()
            # Whatever of the answer a client looks at, it says stop.
            for result in server.post(MODERATIONS, {"input": [SECRET, "b"]}).json()["results"]:
                assert result["flagged"] and result["safeguard"]["failed"]
                assert {*result["category_scores"].values()} == {1.0}
                assert {*result["categories"].values()} == {True}
                assert result["safeguard"]["rule"] == "on_failure"
                assert not any(result["category_applied_input_types"].values())
            decision = server.post(GUARD, _message(SECRET))
            assert decision.json()["action"] == "block" and decision.json()["failed"]
            assert SECRET not in decision.text
            assert (
                server.figure('safeguard_guard_failures_total{guard="words"}')
                + server.figure('safeguard_guard_failures_total{guard="faulty"}')
                == 3
            )
            assert SECRET not in "".join(server.lines)

    def test_a_request_that_takes_too_long_is_no_decision(self, tmp_path: Path) -> None:
        policy = tmp_path / "ask.yaml"
        policy.write_text("default: escalate\n")
        limits = {**LIMITS, "guard_seconds": 0.5, "request_seconds": 1.0}
        with faulty_server(policy=str(policy), hang=600.0, limits=limits) as server:
            server.ready()
            for path, body in ((MODERATIONS, {"input": "a bomb"}), (GUARD, _message("a bomb"))):
                response = server.post(path, body)
                assert response.status_code == 503
                assert problem(response)["code"] == "timeout"
                assert response.headers["retry-after"] == "1"
            assert server.figure("safeguard_requests_running") == 0


def test_handlers_are_asked(tmp_path: Path) -> None:
    policy = tmp_path / "ask.yaml"
    policy.write_text("default: escalate\n")
    with faulty_server(policy=str(policy)) as server:
        server.ready()
        decision = server.post(GUARD, _message("a bomb")).json()
    assert (decision["action"], decision["resolved_by"]) == ("allow", "ask_somebody")
