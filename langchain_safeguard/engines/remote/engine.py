"""The engine whose model runs on servers."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future

import httpx

from langchain_safeguard.engines.answering import ROOM, Progress, PromptEngine
from langchain_safeguard.engines.base import Completion, Prompt
from langchain_safeguard.engines.remote.dialect import Dialect
from langchain_safeguard.engines.remote.pool import Pool
from langchain_safeguard.engines.remote.probing import probe
from langchain_safeguard.engines.remote.replica import Replica
from langchain_safeguard.engines.remote.scoring import Scoring
from langchain_safeguard.engines.remote.servers import Servers
from langchain_safeguard.engines.tokens import PromptTokenizer
from langchain_safeguard.errors import GuardLoadError, GuardTimeoutError

_KEPT_ALIVE = 2.0
"""The seconds an idle connection is kept: less than servers keep it, which is 5 in uvicorn."""


class RemoteEngine(PromptEngine):
    """An engine around servers that speak OpenAI's completions protocol.

    All that is asked runs in one background event loop; the servers make the batches. A stage of an
    answer is one request where a server takes several prompts in one.

    Args:
        servers: The servers.
        tokenizer: The tokenizer of the model that they run.
        limit: The most tokens a prompt may have; less if a server takes less.
        name: What its thread is called.

    Raises:
        GuardLoadError: A server does not run the model as it must.
        GuardConnectionError: None can be reached.
    """

    def __init__(
        self, servers: Servers, tokenizer: PromptTokenizer, *, limit: int, name: str
    ) -> None:
        """Find out what the servers can do."""
        super().__init__(tokenizer, limit=limit, name=name)
        self._servers = servers
        self._scoring = Scoring(self._answering, servers.model)
        self._lock = threading.Lock()
        self._process: int | None = None
        self._least = 0
        self._asked = 0
        self._dialects: dict[str, Dialect] = {}
        pool, loop = self._running()
        try:
            asyncio.run_coroutine_threadsafe(pool.connect(), loop).result()
        except BaseException:
            loop.call_soon_threadsafe(loop.stop)
            raise
        self._dialects = {each.url: each.dialect for each in pool.replicas if each.dialect}
        rooms = [each.room for each in self._dialects.values() if each.room is not None]
        self.limit = min([limit, *(room - ROOM for room in rooms)])
        self._least = self.limit + ROOM

    def counts(self) -> dict[str, int]:
        """Return how many questions were asked so far, and with how many requests."""
        return {"checks": self._asked, "passes": self._scoring.requests}

    def run(self, questions: Sequence[Prompt]) -> list[Completion]:
        """Answer several questions at the same time."""
        return [each.result() for each in [*map(self.submit, questions)]]

    def submit(self, question: Prompt) -> Future[Completion]:
        """Ask; the future can be waited for, awaited and cancelled, which ends its requests."""
        self._asked += 1
        try:
            # In the caller's thread: the event loop is for sending and receiving.
            progress = self._answering.begin(question)
        except Exception as error:
            failed: Future[Completion] = Future()
            failed.set_exception(error)
            return failed
        pool, loop = self._running()
        return asyncio.run_coroutine_threadsafe(self._answer(progress, pool), loop)

    async def _answer(self, progress: Progress, pool: Pool) -> Completion:
        seconds = self._servers.timeout
        try:
            async with asyncio.timeout(seconds):
                while progress.left:
                    await self._advance(progress, pool)
        except TimeoutError:
            pass
        else:
            return progress.completion()
        raise GuardTimeoutError(f"no verdict within {seconds:.3g} s")

    async def _advance(self, progress: Progress, pool: Pool) -> None:
        """Read a stage of an answer, and let the model write what comes next."""
        stage, scoring = self._answering.stage(progress), self._scoring
        readings: dict[str, dict[str, float]] = {}
        if stage.readings:
            readings = await pool.ask(lambda replica: scoring.read(replica, progress.ids, stage))
        writing = self._answering.take(progress, stage, readings)
        if writing is not None:
            ids = await pool.ask(lambda replica: scoring.write(replica, progress.ids, writing))
            self._answering.end(progress, writing, ids)

    async def _check(self, replica: Replica) -> Dialect:
        dialect = await probe(replica, self._tokenizer, self._servers.model)
        if dialect.room is not None and dialect.room < self._least:
            raise GuardLoadError(
                f"{replica.url} takes {dialect.room} tokens, and others that were there when the "
                f"guard was loaded {self._least}; give max_tokens={dialect.room}"
            )
        return dialect

    def _running(self) -> tuple[Pool, asyncio.AbstractEventLoop]:
        """Return what asks the servers, and where; started anew after a fork of the process."""
        with self._lock:
            if self._process != os.getpid():
                self._process = os.getpid()
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name=self.name, daemon=True).start()
                self._pool = self._made_pool()
                if self._dialects:
                    self._loop.call_soon_threadsafe(self._pool.mend)
            return self._pool, self._loop

    def _made_pool(self) -> Pool:
        servers = self._servers
        headers = {"Accept-Encoding": "identity"}
        if servers.api_key is not None:
            headers["Authorization"] = f"Bearer {servers.api_key}"
        client = httpx.AsyncClient(
            headers=headers,
            # Prompts go to the servers that were named and nowhere else: proxies of the environment
            # are for the way out, and servers of guards stand inside. Certificates of the
            # environment (SSL_CERT_FILE) are trusted all the same.
            trust_env=False,
            verify=httpx.create_ssl_context(),
            # How long to wait is the pool's matter.
            timeout=httpx.Timeout(None, connect=servers.failover_after),
            limits=httpx.Limits(
                max_connections=None,
                max_keepalive_connections=servers.max_concurrency * len(servers.urls),
                keepalive_expiry=_KEPT_ALIVE,
            ),
        )
        replicas = [Replica(url, client, self._dialects.get(url)) for url in servers.urls]
        return Pool(
            replicas,
            self._check,
            most=servers.max_concurrency,
            failover_after=min(servers.failover_after, servers.timeout / 2),
        )
