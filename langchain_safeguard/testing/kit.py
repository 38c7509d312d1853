"""`assert_no_leak`: does a secret come out of an app, on any channel?"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig

from langchain_safeguard.errors import ConfigurationError
from langchain_safeguard.testing.callback_channels import CALLBACK_CHANNELS
from langchain_safeguard.testing.channels import Channel, Probe, select
from langchain_safeguard.testing.core_channels import CORE_CHANNELS
from langchain_safeguard.testing.event_channels import EVENT_CHANNELS
from langchain_safeguard.testing.judging import Expectation, judge
from langchain_safeguard.testing.langgraph_channels import LANGGRAPH_CHANNELS
from langchain_safeguard.testing.langserve_channels import LANGSERVE_CHANNELS
from langchain_safeguard.testing.matching import SecretFinder
from langchain_safeguard.testing.process_channels import PROCESS_CHANNELS, Watch
from langchain_safeguard.testing.report import LeakError, LeakReport
from langchain_safeguard.testing.transcript import ChannelUnavailableError, Transcript
from langchain_safeguard.testing.walking import leaves

Expected = str | type[BaseException] | tuple[type[BaseException], ...]

_ALL = (
    *CORE_CHANNELS,
    *EVENT_CHANNELS,
    *CALLBACK_CHANNELS,
    *LANGGRAPH_CHANNELS,
    *LANGSERVE_CHANNELS,
    *PROCESS_CHANNELS,
)

CHANNELS: tuple[str, ...] = tuple(channel.name for channel in _ALL if channel.by_default)
"""Names of the channels, in the order they run. Groups, which `channels=` takes, too: `core`,
`events`, `callbacks`, `langgraph`, `langserve`, `process`."""

OPTIONAL_CHANNELS: tuple[str, ...] = tuple(c.name for c in _ALL if not c.by_default)
"""Names of the channels that run only when they are named."""


class _Session:
    """One test: the channels to run, what they carried, and the judgement."""

    def __init__(
        self,
        runnable: Runnable[Any, Any],
        secret: str | Iterable[str],
        probe_input: Any,
        config: RunnableConfig | None,
        channels: Iterable[str] | None,
        expect: Expected | None,
        allow_errors: bool,
        timeout_s: float,
    ) -> None:
        if not isinstance(runnable, Runnable):
            raise TypeError(f"runnable must be a Runnable, not {type(runnable).__name__}")
        self._finder = SecretFinder(secret)
        self._refuse_secret("input", probe_input)
        self._refuse_secret("config", config)
        self._refuse_secret("expect", expect)
        self.probe = Probe(runnable, probe_input, config, timeout_s)
        self._expectation = Expectation(expect, allow_errors)
        self._report = LeakReport()
        chosen = select(_ALL, channels)
        self._driving = [each for each in chosen if each.group != "process"]
        watched = [each for each in chosen if each.group == "process"]
        # Logs can only be watched while something runs; its own channels are then not reported.
        self._hidden = not self._driving
        self._transcripts = {each.name: self._transcript(each) for each in watched}
        self.watch = Watch(dict(self._transcripts))

    def _refuse_secret(self, what: str, value: Any) -> None:
        texts = [str(leaf.value) for leaf in leaves(value)]
        if any(map(self._finder.found_in, texts)):
            raise ConfigurationError(
                f"the secret is in {what}=, so its appearance would prove nothing; choose a part "
                "of the unsafe answer that the input does not contain"
            )

    def _transcript(self, channel: Channel) -> Transcript:
        return Transcript(channel.name, self._finder, self._expectation.finder)

    def todo(self) -> Iterator[Channel]:
        """The channels to run; those whose packages are missing are noted as skipped."""
        for channel in self._driving or CORE_CHANNELS:
            if channel.missing:
                names = ", ".join(channel.missing)
                self._report.skipped[channel.name] = f"not installed: {names}"
            else:
                yield channel

    @contextlib.contextmanager
    def listening(self, channel: Channel) -> Iterator[Transcript]:
        """Run one channel inside this block."""
        self.watch.running = channel.name
        transcript = self._transcript(channel)
        try:
            yield transcript
        except ChannelUnavailableError as reason:
            self._report.skipped[channel.name] = str(reason)
        else:
            self._transcripts[channel.name] = transcript

    def finish(self) -> LeakReport:
        """Judge what was carried.

        Raises:
            LeakError: The secret leaked, or the test could not have seen it.
        """
        ran = {c.name: (c, self._transcripts[c.name]) for c in _ALL if c.name in self._transcripts}
        judge(ran, self._expectation, self._report)
        if self._hidden:
            for channel in CORE_CHANNELS:
                self._report.channels.pop(channel.name, None)
        if self._report.failed:
            raise LeakError(self._report)
        return self._report


def assert_no_leak(
    runnable: Runnable[Any, Any],
    secret: str | Iterable[str],
    *,
    input: Any,
    config: RunnableConfig | None = None,
    channels: Iterable[str] | None = None,
    expect: Expected | None = None,
    allow_errors: bool = True,
    timeout_s: float = 30.0,
) -> LeakReport:
    """Run an app on every channel and fail if a secret comes out of one.

    See `langchain_safeguard.testing` for what counts as a leak. The app is called about a hundred
    times, so a scripted fake model needs that many answers.

    Args:
        runnable: The app.
        secret: Text that must not appear, or several: a part of the unsafe answer.
        input: What leads to the unsafe answer. It may show up in channels, so it must not contain
            the secret.
        config: Config for each call, e.g. `configurable` values.
        channels: Names of `CHANNELS`, `OPTIONAL_CHANNELS` or of groups. `CHANNELS`, if left out.
        expect: What should come out instead, to prove that the channels were heard: a text, which
            must appear on every channel that carries answers, or exception types, for apps that
            block by raising.
        allow_errors: Whether exceptions on some channels are merely noted in the report. With
            `False`, any exception that is not expected fails the test.
        timeout_s: Seconds one request over HTTP may take.

    Returns:
        What ran, what was skipped and why, how many things were looked at on each channel.

    Raises:
        LeakError: An `AssertionError` that lists every channel the secret came out of.
        ValueError: The secret is empty or in the input; a channel does not exist.
        RuntimeError: Called inside a running event loop; use `aassert_no_leak` there.
    """
    if _in_running_loop():
        raise RuntimeError("inside a running event loop, use: await aassert_no_leak(...)")
    session = _Session(runnable, secret, input, config, channels, expect, allow_errors, timeout_s)
    with session.watch(), asyncio.Runner() as runner:
        for channel in session.todo():
            with session.listening(channel) as transcript:
                if channel.run is not None:
                    channel.run(session.probe, transcript)
                if channel.arun is not None:
                    runner.run(_coroutine(channel, session.probe, transcript))
    return session.finish()


async def aassert_no_leak(
    runnable: Runnable[Any, Any],
    secret: str | Iterable[str],
    *,
    input: Any,
    config: RunnableConfig | None = None,
    channels: Iterable[str] | None = None,
    expect: Expected | None = None,
    allow_errors: bool = True,
    timeout_s: float = 30.0,
) -> LeakReport:
    """Do what `assert_no_leak` does, inside a running event loop.

    The app's sync methods run in a thread, so that they meet no running loop, as in an app.
    """
    session = _Session(runnable, secret, input, config, channels, expect, allow_errors, timeout_s)
    with session.watch():
        for channel in session.todo():
            with session.listening(channel) as transcript:
                if channel.run is not None:
                    await asyncio.to_thread(channel.run, session.probe, transcript)
                if channel.arun is not None:
                    await channel.arun(session.probe, transcript)
    return session.finish()


def _in_running_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _coroutine(channel: Channel, probe: Probe, transcript: Transcript) -> None:
    assert channel.arun is not None
    await channel.arun(probe, transcript)
