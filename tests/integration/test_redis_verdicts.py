"""Verdicts shared through a real Redis server; whatever is wrong with it, the guard is asked."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from langchain_safeguard import ConfigurationError, Safeguard, VerdictCache
from langchain_safeguard.caching.redis_verdicts import RedisVerdicts
from tests.word_guard import WordGuard

redis = pytest.importorskip("redis")
pytestmark = pytest.mark.skipif(
    shutil.which("redis-server") is None, reason="redis-server is not installed"
)


class _Guard(WordGuard):
    """One whose verdicts are the same in every process."""

    @property
    def fingerprint(self) -> str:
        return "words"


class _Server:
    def __init__(self, folder: Path) -> None:
        with socket.socket() as door:
            door.bind(("127.0.0.1", 0))
            self.port = door.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}"
        self.client = redis.Redis.from_url(self.url)
        options = ["--save", "", "--bind", "127.0.0.1", "--dir", str(folder)]
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), *options], stdout=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                self.client.ping()
                return
            except redis.ConnectionError:
                time.sleep(0.05)
        raise TimeoutError("redis-server does not answer")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[_Server]:
    running = _Server(tmp_path)
    yield running
    running.process.kill()
    running.process.wait()


def checked(server: _Server, text: str, guard: WordGuard | None = None) -> tuple[Any, WordGuard]:
    """Check as a process that has seen nothing would."""
    guard = guard or _Guard()
    cache = VerdictCache(store=RedisVerdicts(server.url))
    return Safeguard(guard, cache=cache).check(text), guard


def test_another_process_need_not_ask(server: _Server) -> None:
    first, guard = checked(server, "a bomb")
    again, other = checked(server, "a bomb")
    assert (len(guard.seen), len(other.seen)) == (1, 0)
    assert again == first
    assert again.blocked
    checked(server, "another bomb", other)
    assert len(other.seen) == 1
    kept = server.client.keys()
    assert len(kept) == 2
    assert b"bomb" not in b"".join(kept)
    assert all(0 < server.client.ttl(key) <= 86_400 for key in kept)


def test_a_guard_without_a_fingerprint_shares_nothing(server: _Server) -> None:
    checked(server, "a bomb", WordGuard())
    _, other = checked(server, "a bomb", WordGuard())
    assert len(other.seen) == 1


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{}",
        b"null",
        b"\xff",
        b'{"guard": "words", "score": 7.0}',
        b'{"guard": "words", "failed": true}',
        b'{"guard": "words", "findings": [{"category": "no such"}]}',
    ],
)
def test_what_makes_no_sense_is_asked_again(server: _Server, value: bytes) -> None:
    checked(server, "a bomb")
    [key] = server.client.keys()
    server.client.set(key, value)
    decision, guard = checked(server, "a bomb")
    assert decision.blocked
    assert len(guard.seen) == 1


def test_a_server_that_is_away_or_hangs_is_done_without(server: _Server) -> None:
    checked(server, "a bomb")
    server.process.send_signal(19)  # SIGSTOP: it takes connections and never answers.
    begin = time.monotonic()
    decision, guard = checked(server, "a bomb")
    assert decision.blocked
    assert len(guard.seen) == 1
    assert time.monotonic() - begin < 10
    server.process.kill()
    server.process.wait()
    decision, guard = checked(server, "a bomb")
    assert decision.blocked
    assert len(guard.seen) == 1


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("http://host", {}),
        (5, {}),
        ("redis://host", {"keep": 5}),
        ("redis://host", {"keep": timedelta(0)}),
        ("redis://host", {"prefix": 5}),
    ],
)
def test_wrong_values(url: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="allowed:"):
        RedisVerdicts(url, **options)


def test_what_one_moderation_server_has_judged_another_knows(server: _Server) -> None:
    pytest.importorskip("fastapi")
    from fastapi.testclient import TestClient

    from langchain_safeguard.server import Settings, create_app

    asked = []
    for _ in range(2):
        guard = _Guard()
        app = create_app(Settings(guards=[guard], verdict_store=server.url))
        with TestClient(app) as client:
            while client.get("/readyz").status_code != 200:
                time.sleep(0.01)
            answer = client.post("/v1/moderations", json={"input": "a bomb"}).json()
        assert answer["results"][0]["flagged"]
        asked.append(len(guard.seen))
    assert asked == [1, 0]
