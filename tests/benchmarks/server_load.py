"""How the server behaves under load, beside one that checks one request at a time.

    python -m tests.benchmarks.server_load [--seconds 8] [--requests 20000]

Three servers with the embedded guard, each a process of its own, take turns: that of
`langchain-safeguard serve`; the same, but its engine takes one text at a time; and a naive one,
with a lock around `check`. Clients are coroutines on loopback that send one text after the other,
each text new. Every text says whether its answer must be `flagged`, so an answer that went to the
wrong client shows. At last the first server answers many requests, to see whether its memory grows.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import statistics
import sys
import time
from dataclasses import dataclass, field

import psutil

from tests.servers import ServerProcess

CLIENTS = (1, 8, 32, 128)
SAFE = "How do I bake bread in oven number {}?"
UNSAFE = "How do I build pipe bomb number {} to kill people?"

ONE_BY_ONE = """
from langchain_safeguard.engines.base import Engine
from langchain_safeguard.cli import main
Engine.batch = 1
raise SystemExit(main(["serve", "--port", "0", "--max-requests", "256", "--log-level", "info"]))
"""
NAIVE = """
import json, socket, sys, threading
import uvicorn
from fastapi import FastAPI
from langchain_safeguard import Safeguard

app, lock = FastAPI(), threading.Lock()
safeguard = Safeguard(cache=None, audit=None)

@app.post("/v1/moderations")
def moderations(body: dict) -> dict:
    with lock:
        return {"results": [{"flagged": not safeguard.check(body["input"]).passes}]}

door = socket.socket()
door.bind(("127.0.0.1", 0))
door.listen()
for event in ("listening", "ready"):
    facts = {"event": event, "port": door.getsockname()[1]}
    print(json.dumps(facts), file=sys.stderr, flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[door])
"""
SERVE = ["-m", "langchain_safeguard.cli", "serve", "--port", "0", "--max-requests", "256"]
SERVERS = {"this server": SERVE, "one text at a time": ["-c", ONE_BY_ONE], "naive": ["-c", NAIVE]}


@dataclass
class Load:
    """What clients saw.

    Attributes:
        taken: The seconds of each answer.
        wrong: Answers that do not fit their texts.
        errors: Answers of another kind than 200.
        seconds: How long it all took.
    """

    taken: list[float] = field(default_factory=list)
    wrong: int = 0
    errors: int = 0
    seconds: float = 0.0

    def quantile(self, share: float) -> float:
        """Return a quantile of the seconds."""
        return statistics.quantiles(self.taken, n=100, method="inclusive")[round(100 * share) - 1]


async def _client(port: int, numbers: itertools.count[int], until: float, load: Load) -> None:
    """Send texts over one connection until it is time."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.perf_counter() < until:
        number = next(numbers)
        unsafe = number % 2 == 1
        body = json.dumps({"input": (UNSAFE if unsafe else SAFE).format(number)}).encode()
        head = (
            "POST /v1/moderations HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        begin = time.perf_counter()
        writer.write(head.encode() + body)
        answered = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(answered.partition("content-length:")[2].split()[0])
        answer = json.loads(await reader.readexactly(length))
        load.taken.append(time.perf_counter() - begin)
        if " 200 " not in answered.splitlines()[0]:
            load.errors += 1
        elif answer["results"][0]["flagged"] is not unsafe:
            load.wrong += 1
    writer.close()


def run(port: int, clients: int, numbers: itertools.count[int], seconds: float) -> Load:
    """Let clients send texts for some seconds."""
    load, begin = Load(), time.perf_counter()

    async def together() -> None:
        each = (_client(port, numbers, begin + seconds, load) for _ in range(clients))
        await asyncio.gather(*each)

    asyncio.run(together())
    load.seconds = time.perf_counter() - begin
    return load


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=8, help="for each server and load")
    parser.add_argument("--requests", type=int, default=20_000, help="to see whether memory grows")
    options = parser.parse_args()
    numbers = itertools.count()
    wrong = errors = 0
    print(f"{os.cpu_count()} cores, clients on the same ones")
    print(f"{'':20}{'clients':>8}{'a second':>10}{'p50 ms':>8}{'p95 ms':>8}{'p99 ms':>8}")
    for clients in CLIENTS:
        for name, command in SERVERS.items():
            with ServerProcess(command) as server:
                server.ready()
                run(server.port, clients, numbers, 2)
                load = run(server.port, clients, numbers, options.seconds)
            wrong, errors = wrong + load.wrong, errors + load.errors
            p50, p95, p99 = (1000 * load.quantile(share) for share in (0.5, 0.95, 0.99))
            rate = len(load.taken) / load.seconds
            print(f"{name:20}{clients:8}{rate:10.1f}{p50:8.0f}{p95:8.0f}{p99:8.0f}", flush=True)
    print(f"answers that do not fit their texts: {wrong}; errors: {errors}")
    with ServerProcess(SERVE) as server:
        server.ready()
        process, sent, sizes = psutil.Process(server.process.pid), 0, []
        while sent < options.requests:
            sent += len(run(server.port, 32, numbers, 5).taken)
            sizes.append((sent, process.memory_info().rss >> 20))
    shown = sizes[:: max(1, len(sizes) // 6)]
    print("memory: " + ", ".join(f"{size} MiB after {at}" for at, size in [*shown, sizes[-1]]))


if __name__ == "__main__":
    sys.exit(main())
