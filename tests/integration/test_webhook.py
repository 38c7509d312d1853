"""Webhooks against real sockets: whatever the service does, nothing passes that it did not let."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage

from langchain_safeguard import (
    Action,
    ConfigurationError,
    Decision,
    EscalationError,
    Resolution,
    Safeguard,
    Webhook,
    verify_signature,
)
from langchain_safeguard.escalation.webhook_answer import read_answer
from tests.webhook_receiver import (
    Behaviour,
    Receiver,
    answer,
    break_off,
    drip,
    flood,
    hang,
)
from tests.word_guard import WordGuard

SECRET = "the secret of the webhook"
ESCALATE = {"default": "escalate", "message": "No."}
ALLOW = answer('{"action": "allow"}')

Way = Callable[[Safeguard, Any], Decision]
WAYS: dict[str, Way] = {
    "sync": lambda safeguard, value: safeguard.check(value),
    "async": lambda safeguard, value: asyncio.run(safeguard.acheck(value)),
}


@pytest.fixture(params=WAYS)
def decided(request: pytest.FixtureRequest) -> Way:
    return WAYS[request.param]


def guarded(url: str, *others: Any, **options: Any) -> Safeguard:
    handlers = [Webhook(url, secret=SECRET, **{"timeout": 20.0, **options}), *others]
    return Safeguard(WordGuard(), ESCALATE, handlers=handlers)


ANSWERS: dict[str, tuple[bytes, str, str]] = {
    "allow": (ALLOW, "allow", "hate"),
    "flag": (answer('{"action": "flag", "text": null}'), "flag", "hate"),
    "block": (answer('{"action": "block"}'), "block", "No."),
    "block with a text": (answer('{"action": "block", "text": "Ask Kim."}'), "block", "Ask Kim."),
    "rewrite": (answer('{"action": "rewrite", "text": "사랑"}'), "rewrite", "사랑"),
    "rewrite to nothing": (answer('{"action": "rewrite", "text": ""}'), "rewrite", ""),
    "with a charset": (
        answer('{"action": "allow"}', content_type="Application/JSON; charset=utf-8"),
        "allow",
        "hate",
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_the_service_decides(decided: Way, name: str) -> None:
    sent, action, text = ANSWERS[name]
    with Receiver([sent]) as receiver:
        decision = decided(guarded(receiver.url), "hate")
    assert (decision.action, decision.text) == (action, text)
    assert decision.resolved_by == "webhook"
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    "abstains", [answer(status="204 No Content"), answer('{"action": null}')], ids=["204", "null"]
)
def test_a_service_that_abstains_leaves_it_to_the_next(decided: Way, abstains: bytes) -> None:
    with Receiver([abstains]) as receiver:
        decision = decided(guarded(receiver.url, lambda escalation: "flag"), "hate")
        assert (decision.action, decision.resolved_by) == ("flag", "<lambda>")
        assert decided(guarded(receiver.url), "hate").blocked
    assert len(receiver.requests) == 2


def test_the_request_tells_what_it_is_about_and_is_signed(decided: Way) -> None:
    talk = [HumanMessage("hi"), AIMessage("hello"), HumanMessage("hate \ud800 증오")]
    with Receiver([ALLOW]) as receiver:
        decision = decided(guarded(receiver.url), talk)
    [request] = receiver.requests
    content = json.loads(request.body)
    assert request.line == "POST /hook HTTP/1.1"
    assert content["side"] == "input"
    assert content["text"] == "hate \ud800 증오"
    assert content["decision"]["action"] == "escalate"
    assert content["decision"]["categories"] == ["hate"]
    assert content["decision"]["decision_id"] == decision.decision_id
    assert [(turn["role"], turn["text"]) for turn in content["conversation"]] == [
        ("user", "hi"),
        ("assistant", "hello"),
        ("user", "hate \ud800 증오"),
    ]
    assert request.headers["Idempotency-Key"] == decision.decision_id
    assert verify_signature(request.body, request.headers, SECRET)
    assert SECRET not in request.body.decode() + str(request.headers)


# --- what is not a decision ---

NOT_DECIDED: dict[str, Behaviour] = {
    "no JSON": answer("allow"),
    "broken JSON": answer('{"action": "allow"'),
    "no object": answer('["allow"]'),
    "a text": answer('"allow"'),
    "nothing": answer(""),
    "deep": answer("[" * 200_000),
    "not UTF-8": answer(b'{"action": "allow", "text": "\xff"}'),
    "UTF-16": answer('{"action": "allow"}'.encode("utf-16")),
    "no action": answer("{}"),
    "another key": answer('{"action": "allow", "why": "fun"}'),
    "a key twice": answer('{"action": "block", "action": "allow"}'),
    "an unknown action": answer('{"action": "pass"}'),
    "escalate": answer('{"action": "escalate"}'),
    "capitals": answer('{"action": "ALLOW"}'),
    "true": answer('{"action": true}'),
    "a list": answer('{"action": ["allow"]}'),
    "rewrite without a text": answer('{"action": "rewrite"}'),
    "allow with a text": answer('{"action": "allow", "text": "other"}'),
    "null with a text": answer('{"action": null, "text": "other"}'),
    "a text that is a number": answer('{"action": "rewrite", "text": 5}'),
    "half a letter": answer('{"action": "rewrite", "text": "\\ud800"}'),
    "wrong type": answer('{"action": "allow"}', content_type="text/html"),
    "no type": b'HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\n{"action": "allow"}',
    "compressed": answer(gzip.compress(b'{"action": "allow"}'), Content_Encoding="gzip"),
    "created": answer('{"action": "allow"}', status="201 Created"),
    "accepted": answer('{"action": "allow"}', status="202 Accepted"),
    "redirect": answer('{"action": "allow"}', status="302 Found", Location="/hook"),
    "redirect of a post": answer("", status="307 Temporary Redirect", Location="/hook"),
    "bad request": answer('{"action": "allow"}', status="400 Bad Request"),
    "unauthorized": answer('{"action": "allow"}', status="401 Unauthorized"),
    "gone": answer('{"action": "allow"}', status="410 Gone"),
    "too long": answer(b'{"action": "allow"}' + b" " * (1 << 20)),
    "endless": flood,
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
}


@pytest.mark.parametrize("name", NOT_DECIDED)
def test_anything_else_is_no_decision(
    decided: Way, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Receiver([NOT_DECIDED[name]]) as receiver, caplog.at_level(logging.DEBUG):
        decision = decided(guarded(receiver.url, attempts=1), "so much hate")
    assert decision.blocked
    assert decision.resolved_by is None
    assert decision.text == "No."
    assert len(receiver.requests) == 1
    assert "so much" not in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize("name", ["redirect", "bad request", "no JSON", "wrong type", "too long"])
def test_what_would_not_help_is_not_asked_again(decided: Way, name: str) -> None:
    with Receiver([NOT_DECIDED[name], ALLOW]) as receiver:
        assert decided(guarded(receiver.url), "hate").blocked
    assert len(receiver.requests) == 1


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
SLOW: dict[str, Behaviour] = {
    "hangs": hang,
    "drips its headers": drip(b"HTTP/1.1 200 OK\r\nX-Header: "),
    "drips its body": drip(HEAD + b'{"action": "allow"'),
    "asks for more time than there is": answer("", status="503 Busy", Retry_After="3600"),
}


@pytest.mark.parametrize("name", SLOW)
def test_a_slow_service_holds_nobody(decided: Way, name: str) -> None:
    begin = time.monotonic()
    with Receiver([SLOW[name]]) as receiver:
        decision = decided(guarded(receiver.url, timeout=0.5), "hate")
    assert decision.blocked
    assert time.monotonic() - begin < 10
    assert len(receiver.requests) == 1


# --- asking again ---


def _soon() -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=1), usegmt=True)


PASSING: dict[str, Callable[[], Behaviour]] = {
    "500": lambda: answer("", status="500 Internal Server Error"),
    "503": lambda: answer('{"action": "allow"}', status="503 Service Unavailable"),
    "429": lambda: answer("", status="429 Too Many Requests"),
    "429 with seconds": lambda: answer("", status="429 Too Many Requests", Retry_After="1"),
    "429 with a date": lambda: answer("", status="429 Too Many Requests", Retry_After=_soon()),
    "429 with nonsense": lambda: answer("", status="429 Too Many Requests", Retry_After="soon"),
    "breaks off": lambda: break_off,
    "hangs up": lambda: b"",
}


@pytest.mark.parametrize("name", PASSING)
def test_a_passing_fault_is_asked_again(decided: Way, name: str) -> None:
    with Receiver([PASSING[name](), answer('{"action": "flag"}')]) as receiver:
        decision = decided(guarded(receiver.url), "hate")
    assert decision.action is Action.FLAG
    first, second = receiver.requests
    assert first.body == second.body
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]
    assert verify_signature(second.body, second.headers, SECRET)


def test_it_waits_as_long_as_the_service_asks(decided: Way) -> None:
    begin = time.monotonic()
    with Receiver([PASSING["429 with seconds"](), ALLOW]) as receiver:
        assert decided(guarded(receiver.url), "hate").passes
    assert time.monotonic() - begin >= 1


def test_attempts_come_to_an_end(decided: Way) -> None:
    with Receiver([PASSING["500"]()]) as receiver:
        assert decided(guarded(receiver.url, attempts=2), "hate").blocked
    assert len(receiver.requests) == 2


def test_a_service_that_is_not_there_decides_nothing(decided: Way) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert decided(guarded(f"http://127.0.0.1:{port}/"), "hate").blocked


def test_errors_say_why_in_types_and_numbers(decided: Way) -> None:
    with Receiver([answer("a secret", status="403 Forbidden")]) as receiver:
        url = f"{receiver.url}?token=hidden"
        hook = Webhook(url, secret=SECRET)
        failures: list[BaseException] = []

        def asked(escalation: Any) -> Any:
            try:
                return hook(escalation)
            except EscalationError as error:
                failures.append(error)
                raise

        safeguard = Safeguard(WordGuard(), ESCALATE, handlers=[asked])
        assert decided(safeguard, "so much hate").blocked
    [error] = failures
    assert "403" in str(error)
    for secret in (SECRET, "hidden", "a secret", "so much"):
        assert secret not in repr(error) + repr(hook)


# --- the receiver's side ---


def _received() -> tuple[bytes, dict[str, str]]:
    with Receiver([ALLOW]) as receiver:
        guarded(receiver.url).check("hate")
    [request] = receiver.requests
    return request.body, dict(request.headers)


def test_a_receiver_tells_what_is_not_genuine(monkeypatch: pytest.MonkeyPatch) -> None:
    body, headers = _received()
    sent = int(headers["Safeguard-Timestamp"])
    assert verify_signature(body, {k.lower(): v for k, v in headers.items()}, SECRET)
    assert not verify_signature(body + b" ", headers, SECRET)
    assert not verify_signature(body.replace(b"hate", b"love"), headers, SECRET)
    assert not verify_signature(body, headers, SECRET + " ")
    for name in ("Safeguard-Timestamp", "Safeguard-Signature"):
        assert not verify_signature(body, {k: v for k, v in headers.items() if k != name}, SECRET)
    for time_given in ("", str(sent + 1), f"{sent} ", "-1", "1e9", "٣", "9" * 5000):
        assert not verify_signature(body, {**headers, "Safeguard-Timestamp": time_given}, SECRET)
    for signature in ("", "v1=", headers["Safeguard-Signature"][3:], "v1=é", "v1=\udc80"):
        assert not verify_signature(body, {**headers, "Safeguard-Signature": signature}, SECRET)
    for late, genuine in ((299, True), (302, False), (-299, True), (-302, False)):
        monkeypatch.setattr(time, "time", lambda late=late: sent + late)
        assert verify_signature(body, headers, SECRET) is genuine
    monkeypatch.setattr(time, "time", lambda: sent + 20)
    assert not verify_signature(body, headers, SECRET, tolerance=10)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists) | st.binary())
def test_no_answer_is_read_as_more_than_it_says(answered: Any) -> None:
    """Hardly anything is a decision; whatever is one says so in so many words."""
    body = answered if isinstance(answered, bytes) else json.dumps({"action": answered}).encode()
    try:
        resolution = read_answer("application/json", body)
    except EscalationError:
        return
    if answered is None:
        assert resolution is None
    else:
        assert resolution == Resolution(Action.of(answered))


# --- what is configured wrongly ---


def test_proxies_of_the_environment_are_not_used(
    decided: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = answer('{"action": "block"}')
    with Receiver([ALLOW]) as proxy, Receiver([refusal]) as receiver:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        assert decided(guarded(receiver.url), "hate").blocked
    assert (len(proxy.requests), len(receiver.requests)) == (0, 1)


WRONG: dict[str, dict[str, Any]] = {
    "http elsewhere": {"url": "http://example.com/hook"},
    "a name that looks local": {"url": "http://localhost.example.com/hook"},
    "another scheme": {"url": "ftp://example.com/hook"},
    "no scheme": {"url": "example.com/hook"},
    "no host": {"url": "https:///hook"},
    "no address": {"url": "https://[::1/hook"},
    "a password": {"url": "https://kim:s3cret@example.com/hook"},
    "no text": {"url": 5},
    "no secret": {"secret": ""},
    "a short secret": {"secret": "s3cret"},
    "a secret of bytes": {"secret": b"a secret of bytes"},
    "secret None": {"secret": None},
    "timeout None": {"timeout": None},
    "timeout 0": {"timeout": 0},
    "timeout text": {"timeout": "5"},
    "timeout True": {"timeout": True},
    "timeout nan": {"timeout": float("nan")},
    "attempts 0": {"attempts": 0},
    "attempts True": {"attempts": True},
    "attempts 1.5": {"attempts": 1.5},
    "allow_http 1": {"allow_http": 1},
    "name 5": {"name": 5},
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_named(name: str) -> None:
    options = {"url": "https://example.com/s3cret/path", "secret": SECRET, **WRONG[name]}
    [key] = WRONG[name]
    with pytest.raises(ConfigurationError, match=key) as caught:
        Webhook(**options)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("https://example.com/hook", {}),
        ("http://127.0.0.1:8000/", {}),
        ("http://[::1]/", {}),
        ("http://localhost/", {}),
        ("http://trust.cluster.local/", {"allow_http": True}),
    ],
)
def test_an_address_that_is_safe_enough(url: str, options: dict[str, Any]) -> None:
    assert Webhook(url, secret=SECRET, **options).name == "webhook"


def test_without_httpx_the_error_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['httpx'] = None\n"
        "from langchain_safeguard import MissingExtraError, Webhook\n"
        "try: Webhook('https://example.com', secret='a long secret, or so')\n"
        "except MissingExtraError as error: print(error.extra)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "remote", done.stderr
