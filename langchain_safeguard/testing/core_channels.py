"""Channels every runnable has: its own methods that return or stream the answer."""

from __future__ import annotations

from collections.abc import AsyncIterator

from langchain_safeguard.testing.channels import Channel, Probe
from langchain_safeguard.testing.transcript import Transcript


def _invoke(probe: Probe, transcript: Transcript) -> None:
    with transcript.attempt("invoke") as see:
        see("result", probe.runnable.invoke(probe.input, probe.config))


async def _ainvoke(probe: Probe, transcript: Transcript) -> None:
    with transcript.attempt("ainvoke") as see:
        see("result", await probe.runnable.ainvoke(probe.input, probe.config))


def _batch(probe: Probe, transcript: Transcript) -> None:
    inputs = [probe.input, probe.input]
    with transcript.attempt("batch") as see:
        for result in probe.runnable.batch(inputs, probe.config):
            see("result", result)
    with transcript.attempt("batch return_exceptions") as see:
        for result in probe.runnable.batch(inputs, probe.config, return_exceptions=True):
            see("result", result)
    with transcript.attempt("batch_as_completed") as see:
        for _, result in probe.runnable.batch_as_completed(
            inputs, probe.config, return_exceptions=True
        ):
            see("result", result)


async def _abatch(probe: Probe, transcript: Transcript) -> None:
    inputs = [probe.input, probe.input]
    with transcript.attempt("abatch") as see:
        for result in await probe.runnable.abatch(inputs, probe.config):
            see("result", result)
    with transcript.attempt("abatch return_exceptions") as see:
        for result in await probe.runnable.abatch(inputs, probe.config, return_exceptions=True):
            see("result", result)
    with transcript.attempt("abatch_as_completed") as see:
        async for _, result in probe.runnable.abatch_as_completed(
            inputs, probe.config, return_exceptions=True
        ):
            see("result", result)


def _stream(probe: Probe, transcript: Transcript) -> None:
    with transcript.attempt("stream") as see:
        for chunk in probe.runnable.stream(probe.input, probe.config):
            see("chunk", chunk)


async def _astream(probe: Probe, transcript: Transcript) -> None:
    with transcript.attempt("astream") as see:
        async for chunk in probe.runnable.astream(probe.input, probe.config):
            see("chunk", chunk)


def _transform(probe: Probe, transcript: Transcript) -> None:
    with transcript.attempt("transform") as see:
        for chunk in probe.runnable.transform(iter([probe.input]), probe.config):
            see("chunk", chunk)


async def _atransform(probe: Probe, transcript: Transcript) -> None:
    async def once() -> AsyncIterator[object]:
        yield probe.input

    with transcript.attempt("atransform") as see:
        async for chunk in probe.runnable.atransform(once(), probe.config):
            see("chunk", chunk)


CORE_CHANNELS = (
    Channel("invoke", "core", run=_invoke),
    Channel("ainvoke", "core", arun=_ainvoke),
    Channel("batch", "core", run=_batch),
    Channel("abatch", "core", arun=_abatch),
    Channel("stream", "core", run=_stream),
    Channel("astream", "core", arun=_astream),
    Channel("transform", "core", run=_transform),
    Channel("atransform", "core", arun=_atransform),
)
