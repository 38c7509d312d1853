"""Asking another service: a signed request, and an answer that is read strictly."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import json
import logging
import ssl
import time
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from langchain_safeguard.calling import call_handler, seconds_or_none
from langchain_safeguard.errors import ConfigurationError, EscalationError, MissingExtraError
from langchain_safeguard.escalation.base import Escalation, Resolution
from langchain_safeguard.escalation.signature import read_secret, signed_headers
from langchain_safeguard.escalation.webhook_answer import read_answer

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger(__name__)

_MOST_BYTES = 1 << 20
"""The longest answer that is read."""
_backoff = wait_random_exponential(multiplier=0.1, max=5)


class _TransientError(EscalationError):
    """Asking again may help.

    Attributes:
        after: In how many seconds, where the receiver said so.
    """

    def __init__(self, message: str, after: float = 0.0) -> None:
        super().__init__(message)
        self.after = after


class Webhook:
    """Asks another service what to do about a text: a ticket system, a chat bot, a bigger guard.

    It posts JSON. Whoever decides needs to see what it is about, so **the text and the conversation
    leave the process**:

        {"decision": {"action": "escalate", "decision_id": ..., "categories": [...], ...},
         "side": "input" | "output" | "tool_input" | "tool_output",
         "text": the text in question,
         "conversation": [{"role": ..., "text": ..., "unchecked": [...]}, ...]}

    The headers `Safeguard-Timestamp` and `Safeguard-Signature` sign it, see `verify_signature`;
    `Idempotency-Key` is the decision's id, the same for the same text in the same conversation.

    The answer is status 200 with `{"action": ..., "text": ...}` as `application/json`. The action
    is `"allow"`, `"flag"`, `"block"` or `"rewrite"`; the text is the new one, or the refusal.
    Status 204, or an action of `null`, leaves it to the next handler. With anything else, redirects
    and answers of more than 1 MiB included, nothing was decided, and the next handler is asked,
    too.

    A request is sent again, with the same `Idempotency-Key`, when the service cannot be reached or
    breaks off, and after the statuses 429 and 5xx, not earlier than `Retry-After` says.

    Args:
        url: Where to post; `https`, or `http` on this machine. Put no secret into it: httpx logs
            addresses at level INFO. It is reached directly: proxies that environment variables
            name are not used, since they could read the texts and decide.
        secret: Signs the requests; 16 characters or more.
        timeout: The seconds until an answer must be there, all attempts together.
        attempts: How often to post at most.
        allow_http: Whether the url may be `http` on another machine, such as inside a cluster.
        name: What rules and records call it.

    Raises:
        ConfigurationError: A value is wrong; the message names it and what is allowed.
        MissingExtraError: httpx is not installed.

    Example:
        ```python
        webhook = Webhook("https://trust.example.com/escalations", secret=os.environ["HOOK_SECRET"])
        safeguard = Safeguard(policy="policy.yaml", handlers=[webhook])
        ```
    """

    def __init__(
        self,
        url: str,
        *,
        secret: str,
        timeout: float = 10.0,
        attempts: int = 3,
        allow_http: bool = False,
        name: str = "webhook",
    ) -> None:
        """Check the values; nothing is sent yet."""
        self._httpx = _httpx()
        if not isinstance(allow_http, bool):
            raise ConfigurationError.unknown("allow_http", allow_http, (True, False))
        if type(attempts) is not int or attempts < 1:
            raise ConfigurationError(f"attempts={attempts!r}; allowed: 1, 2, ...")
        seconds = seconds_or_none("timeout", timeout)
        if seconds is None:
            raise ConfigurationError("timeout=None; allowed: seconds above 0")
        if not isinstance(name, str) or not name:
            raise ConfigurationError(f"name={name!r}; allowed: a text")
        self.name = name
        self._url = _read_url(url, self._httpx, allow_http=allow_http)
        self._secret = read_secret(secret)
        self._timeout = seconds
        self._retry: dict[str, Any] = {
            "stop": stop_after_attempt(attempts),
            "wait": _wait,
            "retry": retry_if_exception_type(_TransientError),
            "reraise": True,
        }

    def __repr__(self) -> str:
        """Return the host alone: paths and queries of webhooks are often secret."""
        return f"Webhook({self._url.scheme}://{self._url.netloc.decode()})"

    def __call__(self, escalation: Escalation) -> Resolution | None:
        """Ask, and wait for the answer.

        Raises:
            EscalationError: The service did not decide.
        """
        ask = Retrying(**self._retry)
        request = (*_content(escalation), self._deadline())
        try:
            # In a thread of its own: a socket's timeout starts anew with each byte, and a service
            # that drips must not hold anyone.
            decided: Resolution | None = call_handler(
                lambda _: ask(self._post, *request), None, seconds=self._timeout
            )
        except EscalationError as error:
            raise self._noted(error) from None
        return decided

    async def acall(self, escalation: Escalation) -> Resolution | None:
        """Ask without blocking the event loop; see `__call__`."""
        ask = AsyncRetrying(**self._retry)
        request = (*_content(escalation), self._deadline())
        try:
            async with asyncio.timeout(self._timeout):
                return await ask(self._apost, *request)
        except TimeoutError:
            raise self._noted(self._late()) from None
        except EscalationError as error:
            raise self._noted(error) from None

    def _post(self, body: bytes, key: str, deadline: float) -> Resolution | None:
        options, received = self._request(body, key, deadline), bytearray()
        try:
            with (
                self._httpx.Client(verify=_tls(), trust_env=False) as client,
                client.stream("POST", self._url, **options) as response,
            ):
                if not _is_decided(response, deadline):
                    return None
                for piece in response.iter_raw():
                    self._take(piece, received, deadline)
                return read_answer(response.headers.get("content-type", ""), bytes(received))
        except self._httpx.TransportError as error:
            raise self._unreached(error) from None

    async def _apost(self, body: bytes, key: str, deadline: float) -> Resolution | None:
        options, received = self._request(body, key, deadline), bytearray()
        try:
            async with (
                self._httpx.AsyncClient(verify=_tls(), trust_env=False) as client,
                client.stream("POST", self._url, **options) as response,
            ):
                if not _is_decided(response, deadline):
                    return None
                async for piece in response.aiter_raw():
                    self._take(piece, received, deadline)
                return read_answer(response.headers.get("content-type", ""), bytes(received))
        except self._httpx.TransportError as error:
            raise self._unreached(error) from None

    def _request(self, body: bytes, key: str, deadline: float) -> dict[str, Any]:
        """Return what one request is made of; each is signed anew, with its own time."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise self._late()
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "langchain-safeguard",
            "Idempotency-Key": key,
            **signed_headers(body, self._secret),
        }
        return {"content": body, "headers": headers, "timeout": left, "follow_redirects": False}

    def _take(self, piece: bytes, received: bytearray, deadline: float) -> None:
        received += piece
        if len(received) > _MOST_BYTES:
            raise EscalationError(f"the webhook's answer is longer than {_MOST_BYTES} bytes")
        if time.monotonic() >= deadline:
            raise self._late()

    def _unreached(self, error: Exception) -> EscalationError:
        message = f"the webhook could not be reached: {type(error).__name__}"
        of_the_net = (self._httpx.NetworkError, self._httpx.RemoteProtocolError)
        return (
            _TransientError(message) if isinstance(error, of_the_net) else EscalationError(message)
        )

    def _deadline(self) -> float:
        return time.monotonic() + self._timeout

    def _late(self) -> EscalationError:
        return EscalationError(f"no answer within {self._timeout} s")

    def _noted(self, error: EscalationError) -> EscalationError:
        # Of the same words, but without what led to it, which holds the request.
        logger.warning("%r did not decide: %s", self, error)
        return EscalationError(str(error))


def _content(escalation: Escalation) -> tuple[bytes, str]:
    """Return the body of the request, and what tells it from all others."""
    turns = escalation.conversation.turns
    content = {
        "decision": escalation.decision.summary(),
        "side": escalation.side,
        "text": escalation.text,
        "conversation": [
            {"role": turn.role, "text": turn.text, "unchecked": list(turn.unchecked)}
            for turn in turns
        ],
    }
    return json.dumps(content).encode(), escalation.decision.decision_id


def _is_decided(response: httpx.Response, deadline: float) -> bool:
    """Tell whether there is an answer to read; there is none if the service abstains.

    Raises:
        EscalationError: The status says neither.
    """
    status = response.status_code
    if status in (200, 204):
        return status == 200
    message = f"the webhook answered with status {status}"
    if status != 429 and status < 500:
        raise EscalationError(message)
    after = _retry_after(response.headers.get("retry-after", ""))
    if after >= deadline - time.monotonic():
        raise EscalationError(f"{message}, and asks for more time than there is")
    raise _TransientError(message, after)


def _retry_after(value: str) -> float:
    """Read a header `Retry-After`: seconds, or a date; 0 where it is neither."""
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
        # Dates of HTTP are in UTC, whether they say so or not.
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        return max(date.timestamp() - time.time(), 0.0)
    except (ValueError, OverflowError, OSError):
        return 0.0


def _wait(state: RetryCallState) -> float:
    """Return the seconds to wait: what the service asks for, and a random bit more each time."""
    error = state.outcome.exception() if state.outcome is not None else None
    return getattr(error, "after", 0.0) + _backoff(state)


def _read_url(url: object, httpx: Any, *, allow_http: bool) -> Any:
    """Read an address; messages hold none of it but scheme and host."""
    if not isinstance(url, str):
        raise ConfigurationError(f"a url of type {type(url).__name__}; allowed: a text")
    try:
        read = httpx.URL(url)
    except httpx.InvalidURL:
        raise ConfigurationError("url is no address; allowed: https://host/path") from None
    if read.scheme not in ("https", "http") or not read.host:
        raise ConfigurationError(
            f"url has scheme {read.scheme!r} and host {read.host!r}; allowed: https://host/path"
        )
    if read.userinfo:
        raise ConfigurationError("url holds a user or password; the secret signs the requests")
    if read.scheme == "http" and not (allow_http or _is_this_machine(read.host)):
        raise ConfigurationError(
            f"url is http://{read.host}, where everybody on the way can read the texts and write "
            "the answers; allowed: https, or allow_http=True"
        )
    return read


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@functools.cache
def _tls() -> ssl.SSLContext:
    """Return what connections are checked with; made once, since it reads all certificates."""
    context: ssl.SSLContext = _httpx().create_ssl_context()
    return context


def _httpx() -> Any:
    try:
        import httpx
    except ImportError as error:
        raise MissingExtraError("httpx", "remote") from error
    return httpx
