"""The review queue on real databases: nothing is lost, and one ticket is decided once."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

import langchain_safeguard
from langchain_safeguard import ConfigurationError, Conversation, ReviewQueue
from langchain_safeguard.cli import main
from langchain_safeguard.decision import Decision, decide
from langchain_safeguard.errors import (
    ReviewError,
    ReviewTimeoutError,
    TicketDecidedError,
    UnknownTicketError,
)
from langchain_safeguard.policy import Policy
from langchain_safeguard.review.api import review_router
from tests.databases import postgresql_server
from tests.word_guard import WordGuard

ROOT = Path(langchain_safeguard.__file__).parent.parent
POLICY = Policy.of({"rules": [{"categories": "hate", "action": "escalate"}]})
HOSTILE = "hate \x00\x1b[2J\ud800 '; DROP TABLE safeguard_tickets; -- 안녕 😀"


def held(words: str = "I hate you", *, prompt: str | None = None) -> tuple[Conversation, Decision]:
    side: Any = "input" if prompt is None else "output"
    asked = Conversation.of(words) if prompt is None else Conversation.of(prompt).answered(words)
    decision, _ = decide(POLICY, asked, side, WordGuard().check([asked], side))
    return asked, decision


@pytest.fixture
def url(database_url: str) -> str:
    return database_url


@pytest.fixture
def queue(url: str) -> ReviewQueue:
    return ReviewQueue(url)


class TestTickets:
    def test_a_held_text_comes_back_as_it_was(self, queue: ReviewQueue, url: str) -> None:
        conversation, decision = held(HOSTILE, prompt="Why?\x00")
        ticket = queue.add(conversation, decision, earlier=["before"])
        assert ReviewQueue(url).get(ticket.id) == ticket
        assert (ticket.text, ticket.side, ticket.status) == (HOSTILE, "output", "open")
        assert (ticket.categories, ticket.score) == (("hate",), 0.9)
        assert ticket.decision_id == decision.decision_id
        assert ticket.released is None
        assert HOSTILE not in repr(ticket)

    @pytest.mark.parametrize(
        ("verb", "words", "status", "released"),
        [
            ("approve", None, "approved", "I hate you"),
            ("edit", HOSTILE, "edited", HOSTILE),
            ("reject", None, "rejected", None),
            ("reject", "Not here.", "rejected", None),
            ("respond", "Call us.", "responded", "Call us."),
        ],
    )
    def test_it_is_decided_once(
        self, queue: ReviewQueue, verb: Any, words: str | None, status: str, released: str | None
    ) -> None:
        id = queue.add(*held()).id
        decided = queue.decide(id, verb, words, reviewer="kim", note="seen")
        assert queue.get(id) == decided
        assert (decided.status, decided.reply, decided.released) == (status, words, released)
        assert (decided.reviewer, decided.note) == ("kim", "seen")
        assert decided.decided_at is not None
        for again in ("approve", "reject"):
            with pytest.raises(
                TicketDecidedError, match=f"was {status} already by 'kim'"
            ) as caught:
                queue.decide(id, again, reviewer="lee")  # type: ignore[arg-type]
            assert caught.value.ticket == decided
        assert queue.get(id) == decided

    def test_of_many_at_once_one_decides(self, queue: ReviewQueue, url: str) -> None:
        id = queue.add(*held()).id
        queues = [queue, *(ReviewQueue(url) for _ in range(3))]
        ready = threading.Barrier(8)

        def decide_it(number: int) -> str | None:
            ready.wait()
            try:
                return queues[number % 4].decide(id, "approve", reviewer=str(number)).reviewer
            except TicketDecidedError:
                return None

        with ThreadPoolExecutor(8) as pool:
            winners = [each for each in pool.map(decide_it, range(8)) if each is not None]
        assert winners == [queue.get(id).reviewer]

    def test_many_open_a_new_one_at_once(self, url: str) -> None:
        # Workers of a server do, when it starts for the first time.
        begin = threading.Barrier(8)

        def opened(_: int) -> str:
            begin.wait()
            return ReviewQueue(url).add(*held()).id

        with ThreadPoolExecutor(8) as pool:
            ids = {*pool.map(opened, range(8))}
        assert {ticket.id for ticket in ReviewQueue(url).list()} == ids

    def test_a_file_is_its_owners(self, tmp_path: Path) -> None:
        ReviewQueue(tmp_path / "new.db").add(*held())
        assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}

    def test_they_are_listed_in_order(self, queue: ReviewQueue) -> None:
        ids = [queue.add(*held(f"hate {n}")).id for n in range(7)]
        queue.decide(ids[2], "reject")
        assert [t.id for t in queue.list()] == [*ids[:2], *ids[3:]]
        assert [t.id for t in queue.list(None)] == ids
        assert [t.id for t in queue.list("rejected")] == [ids[2]]
        assert [t.id for t in queue.list(None, limit=3)] == ids[:3]
        assert [t.id for t in queue.list(None, after=ids[2], limit=2)] == ids[3:5]
        assert [t.id for t in queue.decided()] == [ids[2]]

    def test_what_was_decided_long_ago_is_deleted(self, queue: ReviewQueue) -> None:
        ids = [queue.add(*held()).id for _ in range(3)]
        queue.decide(ids[0], "reject")
        assert queue.purge(timedelta(days=1)) == 0
        assert queue.purge(timedelta(0)) == 1
        assert [t.id for t in queue.list(None)] == ids[1:]
        for wrong in (5, timedelta(days=-1)):
            with pytest.raises(ConfigurationError, match="older_than"):
                queue.purge(wrong)  # type: ignore[arg-type]

    @pytest.mark.parametrize("way", ["sync", "async"])
    def test_waiting(self, queue: ReviewQueue, way: str) -> None:
        def wait(id: str, timeout: float | None) -> Any:
            if way == "sync":
                return queue.wait_for_review(id, timeout, every=0.02)
            return asyncio.run(queue.await_review(id, timeout, every=0.02))

        id = queue.add(*held()).id
        with pytest.raises(ReviewTimeoutError, match="stays open"):
            wait(id, 0.1)
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(wait, id, 60)
            time.sleep(0.1)
            assert not waiting.done()
            queue.decide(id, "respond", "Hello.")
            assert waiting.result().released == "Hello."
        with pytest.raises(UnknownTicketError):
            wait("nobody", 1)

    @pytest.mark.parametrize(
        ("verb", "words", "said"),
        [
            ("allow", None, "allowed: approve, edit, reject, respond"),
            ("edit", None, "'edit' needs a text"),
            ("edit", "", "'edit' needs a text"),
            ("respond", None, "'respond' needs a text"),
            ("approve", "but so", "takes no text"),
            ("edit", 5, "text is a int"),
        ],
    )
    def test_a_wrong_decision_decides_nothing(
        self, queue: ReviewQueue, verb: Any, words: Any, said: str
    ) -> None:
        id = queue.add(*held()).id
        with pytest.raises(ConfigurationError, match=said):
            queue.decide(id, verb, words)
        assert queue.get(id).is_open

    def test_only_what_is_allowed(self, queue: ReviewQueue) -> None:
        id = queue.add(*held(), allowed=["reject"]).id
        with pytest.raises(ConfigurationError, match="'approve'; allowed: reject"):
            queue.decide(id, "approve")
        assert queue.decide(id, "reject").status == "rejected"


class TestDatabase:
    def test_a_killed_process_loses_nothing(self, queue: ReviewQueue, url: str) -> None:
        code = (
            "import os, signal, sys; from langchain_safeguard import ReviewQueue\n"
            "from tests.integration.test_review_queue import held\n"
            "queue = ReviewQueue(sys.argv[1])\n"
            "for n in range(1000):\n"
            "    print(queue.add(*held(f'hate {n}')).id, flush=True)\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", code, url], cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            told = [process.stdout.readline().strip() for _ in range(5)]
            os.kill(process.pid, signal.SIGKILL)
            told += process.stdout.read().split()[:-1]
        kept = [ticket.id for ticket in queue.list(limit=5000)]
        assert {*told} <= {*kept}
        assert [t.text for t in queue.list()][:5] == [f"hate {n}" for n in range(5)]

    def test_a_database_that_goes_away(self, tmp_path: Path) -> None:
        folder = tmp_path / "data"
        folder.mkdir()
        files = ReviewQueue(folder / "reviews.db")
        with postgresql_server() as server:
            tables = ReviewQueue(server.get_uri().replace("postgres:@", "postgres:hush@"))
            ids = [queue.add(*held()).id for queue in (files, tables)]
        shutil.rmtree(folder)
        for queue, id in zip((files, tables), ids, strict=True):
            for use in (
                lambda queue=queue: queue.add(*held(HOSTILE)),
                lambda queue=queue, id=id: queue.decide(id, "approve"),
                lambda queue=queue: queue.list(),
            ):
                with pytest.raises(ReviewError, match="cannot be used") as caught:
                    use()
                shown = f"{caught.value!r} {caught.value.__cause__!r}"
                assert "hush" not in shown and "hate" not in shown
        assert not folder.exists()

    @pytest.mark.parametrize(
        ("url", "said"),
        [
            ("mysql://host/name", "allowed: sqlite, postgresql"),
            ("sqlite://", "is lost with the process"),
            ("no/such/folder/reviews.db", "there is no"),
            ("", "cannot be read"),
            ("://x", "cannot be read"),
            (5, "cannot be read"),
        ],
    )
    def test_wrong_urls(self, url: Any, said: str) -> None:
        with pytest.raises(ConfigurationError, match=said):
            ReviewQueue(url)

    @pytest.mark.parametrize("timeout", [0, "5", True, None])
    def test_wrong_timeouts(self, tmp_path: Path, timeout: Any) -> None:
        with pytest.raises(ConfigurationError, match="timeout="):
            ReviewQueue(tmp_path / "reviews.db", timeout=timeout)

    def test_nobody_listens(self) -> None:
        with pytest.raises(ReviewError, match="cannot be used") as caught:
            ReviewQueue("postgresql://kim:hush@127.0.0.1:1/reviews", timeout=2)
        assert "hush" not in str(caught.value)

    def test_the_default_is_in_the_home(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        ReviewQueue().add(*held())
        assert len(ReviewQueue(tmp_path / ".langchain-safeguard" / "reviews.db").list()) == 1


class TestCommand:
    @pytest.fixture
    def cli(
        self, queue: ReviewQueue, url: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[..., tuple[int, str, str]]:
        monkeypatch.setenv("SAFEGUARD_REVIEW_QUEUE", url)

        def run(*arguments: str) -> tuple[int, str, str]:
            code = main(["review", *arguments])
            said = capsys.readouterr()
            return code, said.out, said.err

        return run

    def test_from_list_to_export(self, queue: ReviewQueue, cli: Any, tmp_path: Path) -> None:
        ids = [queue.add(*held(f"hate {n}")).id for n in range(4)]
        answer = queue.add(*held("I hate it", prompt="How is it?")).id
        code, out, _ = cli("list")
        assert code == 0
        assert all(id in out for id in ids)
        assert cli("approve", ids[0], "--reviewer", "kim")[0] == 0
        assert cli("edit", ids[1], "nicer", "--note", "so")[0] == 0
        assert cli("reject", ids[2])[0] == 0
        assert cli("respond", answer, "Ask me.")[0] == 0
        assert "edited" in cli("list", "--status", "all")[1]
        assert len(cli("list", "--json")[1].splitlines()) == 1
        assert "reply: nicer" in cli("show", ids[1])[1]
        assert json.loads(cli("show", ids[1], "--json")[1])["note"] == "so"
        rows = tmp_path / "rows.jsonl"
        rows.write_text(cli("export")[1])
        found = {row["id"]: row["unsafe"] for row in map(json.loads, rows.read_text().splitlines())}
        assert found == {ids[0]: 0, ids[1]: 1, ids[2]: 1, answer: 1}
        report = tmp_path / "report.json"
        options = ["--data", str(rows), "--json", str(report), "--quiet", "--latency-rows", "0"]
        assert main(["evaluate", *options]) == 0
        assert "4" in report.read_text()

    def test_hostile_text_does_not_steer_the_terminal(self, queue: ReviewQueue, cli: Any) -> None:
        id = queue.add(*held(HOSTILE)).id
        for command in (["list"], ["show", id], ["show", id, "--json"], ["list", "--json"]):
            out = cli(*command)[1]
            assert "\x1b" not in out and "\x00" not in out
            assert "hate" in out

    @pytest.mark.parametrize(
        ("arguments", "code", "said"),
        [
            (["show", "nobody"], 1, "no ticket 'nobody'"),
            (["approve", "nobody"], 1, "no ticket 'nobody'"),
            (["list", "--limit", "0"], 2, "limit=0"),
            (["list", "--queue", ""], 2, "is empty"),
            (["list", "--queue", "mysql://x/y"], 2, "allowed: sqlite"),
            (["edit", "x"], 2, "required: text"),
            (["purge"], 2, "required: --days"),
            (["purge", "--days", "nan"], 2, "--days nan"),
            (["purge", "--days", "-1"], 2, "allowed: a timedelta of 0 or more"),
            ([], 2, "required: ACTION"),
        ],
    )
    def test_wrong_use(self, cli: Any, arguments: list[str], code: int, said: str) -> None:
        got, out, err = cli(*arguments)
        assert (got, out) == (code, "")
        assert said in err

    def test_purge(self, queue: ReviewQueue, cli: Any) -> None:
        decided, _ = queue.add(*held()).id, queue.add(*held())
        queue.decide(decided, "reject")
        assert cli("purge", "--days", "9999999")[:2] == (0, "0 tickets deleted\n")
        assert cli("purge", "--days", "1")[:2] == (0, "0 tickets deleted\n")
        assert cli("purge", "--days", "0")[:2] == (0, "1 ticket deleted\n")
        assert len(queue.list(None)) == 1

    def test_a_second_decision_fails(self, queue: ReviewQueue, cli: Any) -> None:
        id = queue.add(*held()).id
        assert cli("reject", id, "--reviewer", "kim")[0] == 0
        code, _, err = cli("approve", id)
        assert code == 1
        assert "was rejected already by 'kim'" in err


@pytest.fixture
def served(queue: ReviewQueue) -> Iterator[httpx.Client]:
    app = FastAPI()
    app.include_router(review_router(queue), prefix="/review")
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True)
        door.listen()
        thread.start()
        with httpx.Client(base_url=f"http://127.0.0.1:{door.getsockname()[1]}/review") as client:
            yield client
        server.should_exit = True
        thread.join(20)


class TestRouter:
    def test_from_list_to_decision(self, queue: ReviewQueue, served: httpx.Client) -> None:
        ids = [queue.add(*held(HOSTILE)).id for _ in range(2)]
        listed = served.get("/tickets", params={"limit": 1}).json()
        assert [each["id"] for each in listed] == ids[:1]
        assert served.get("/tickets", params={"after": ids[0]}).json()[0]["id"] == ids[1]
        assert served.get(f"/tickets/{ids[0]}").json()["status"] == "open"
        asked = {"decision": "edit", "text": "fine", "reviewer": "kim"}
        decided = served.post(f"/tickets/{ids[0]}/decision", json=asked)
        assert decided.json()["status"] == "edited"
        assert queue.get(ids[0]).released == "fine"
        again = served.post(f"/tickets/{ids[0]}/decision", json={"decision": "approve"})
        assert again.status_code == 409
        assert "was edited already by 'kim'" in again.json()["detail"]

    @pytest.mark.parametrize(
        ("path", "body", "code"),
        [
            ("/tickets/nobody/decision", {"decision": "approve"}, 404),
            ("/tickets/{id}/decision", {"decision": "allow"}, 422),
            ("/tickets/{id}/decision", {"decision": "edit"}, 422),
            ("/tickets/{id}/decision", {"decision": "approve", "more": 1}, 422),
            ("/tickets/{id}/decision", [], 422),
        ],
    )
    def test_wrong_use(
        self, queue: ReviewQueue, served: httpx.Client, path: str, body: Any, code: int
    ) -> None:
        id = queue.add(*held()).id
        assert served.post(path.format(id=id), json=body).status_code == code
        assert queue.get(id).is_open
        assert served.get("/tickets/nobody").status_code == 404
        assert served.get("/tickets", params={"limit": 0}).status_code == 422
