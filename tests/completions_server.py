"""A server of OpenAI's completions protocol, in its own process, that can be told to misbehave.

It serves causal models, and `word`, which has no weights: it finds a prompt unsafe if it knows a
word in it. What it is able to do depends on the address: `/selects/v1` speaks as vLLM does,
`/top/v1` lists likely tokens by their ids only, `/plain/v1` takes nothing but what OpenAI has and
lists five tokens by their texts, `/content/v1` speaks as llama.cpp's own server, `/texts/v1` as
llama-cpp-python's, which takes texts only, `/logitless/v1` as the same without `--logits_all`,
`/strings/v1` as transformers' own, and `/silent/v1` lists none.

Run as a program: `python -m tests.completions_server '{"models": {"planted": "folder"}}'`.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from tokenizers import Tokenizer

from tests.servers import ServerProcess

_OF_OPENAI = {"model", "prompt", "max_tokens", "temperature", "logprobs", "stop"}
_MOST = {
    "selects": 20,
    "top": 20,
    "plain": 5,
    "content": 1 << 20,
    "texts": 1 << 20,
    "strings": 0,
    "silent": 0,
}

Scorer = Callable[[Sequence[int]], list[float]]


class CompletionsServer(ServerProcess):
    """The server, seen from a test."""

    def __init__(self, **options: Any) -> None:
        super().__init__(["-m", "tests.completions_server", json.dumps(options)])

    def url(self, dialect: str = "selects") -> str:
        """Return the base URL of a dialect."""
        return f"{self.address}/{dialect}/v1"

    def misbehave(self, kind: str | None, **how: Any) -> None:
        """Answer completions in a wrong way from now on; `None` ends that."""
        assert self.post("/fault", {"kind": kind, **how}).status_code == 200

    def seen(self) -> dict[str, Any]:
        """Return what it has seen so far."""
        found: dict[str, Any] = self.get("/seen").json()
        return found


class Refused(Exception):
    """A request that the server does not take."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Served:
    """One model.

    Args:
        folder: Its tokenizer, and its weights.
        word: Instead of weights: what makes a prompt unsafe.
    """

    def __init__(self, folder: Path, word: str | None = None) -> None:
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.scores = self._of_word(word) if word else self._of_weights(folder)

    def _of_weights(self, folder: Path) -> Scorer:
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(1)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.ends = {model.config.eos_token_id}

        @lru_cache(maxsize=256)
        @torch.inference_mode()
        def scores(ids: tuple[int, ...]) -> list[float]:
            logits = model(torch.tensor([ids])).logits[0, -1]
            found: list[float] = logits.double().log_softmax(0).tolist()
            return found

        return lambda ids: scores(tuple(ids))

    def _of_word(self, word: str) -> Scorer:
        self.ends = set()
        size = self.tokenizer.get_vocab_size()
        first = {said: set() for said in ("yes", "no")}
        for said, ids in first.items():
            for space in ("", " "):
                ids.add(self.tokenizer.encode(f":{space}{said}", add_special_tokens=False).ids[1])

        def scores(ids: Sequence[int]) -> list[float]:
            said = "yes" if word in self.text(ids) else "no"
            logits = [4.0 if each in first[said] else -8.0 for each in range(size)]
            total = math.log(math.fsum(map(math.exp, logits)))
            return [each - total for each in logits]

        return scores

    def text(self, ids: Sequence[int], *, control: bool = True) -> str:
        found: str = self.tokenizer.decode([*ids], skip_special_tokens=not control)
        return found

    def named(self, id_: int) -> str:
        """Return what llama.cpp calls a token: nothing, if it is a control token."""
        begin = self.tokenizer.encode("\n", add_special_tokens=False).ids
        return self.text([*begin, id_], control=False)[1:].replace("\ufffd", "")


class Completions:
    """The protocol, without sockets."""

    def __init__(self, models: Mapping[str, Served], room: int) -> None:
        self.models = models
        self.room = room

    def complete(self, dialect: str, body: Mapping[str, Any]) -> dict[str, Any]:
        model = self.models.get(body["model"])
        if model is None:
            raise Refused(404, "no such model")
        if dialect == "plain" and (unknown := {*body} - _OF_OPENAI):
            raise Refused(422, f"unknown: {sorted(unknown)}")
        prompts = body["prompt"]
        if dialect in ("texts", "logitless") and not isinstance(prompts, str):
            raise Refused(500, f"no text: {prompts}")
        if dialect == "strings" and not isinstance(prompts, str):
            raise Refused(400, "prompt must be a string.")
        if dialect == "logitless":
            if body.get("logprobs") is not None:
                raise Refused(500, "no log-probabilities without logits_all")
            dialect = "texts"
        if (body.get("logprobs") or 0) > (_MOST[dialect] or 20):
            raise Refused(400, f"logprobs: at most {_MOST[dialect]}")
        if isinstance(prompts, str):
            prompts = model.tokenizer.encode(prompts).ids
        several = isinstance(prompts[0], list)
        if several and dialect == "plain":
            raise Refused(400, "one prompt at a time")
        prompts = prompts if several else [prompts]
        if any(id_ >= model.tokenizer.get_vocab_size() for ids in prompts for id_ in ids):
            raise Refused(400, "a token is out of vocabulary")
        if any(len(ids) + body["max_tokens"] > self.room for ids in prompts):
            # As some servers do, it repeats what it was asked: that must not be shown on.
            raise Refused(400, f"too long: {[model.text(ids) for ids in prompts]}")
        choices = [
            {"index": place, **self._one(model, dialect, body, ids)}
            for place, ids in enumerate(prompts)
        ]
        counted = prompts[:1] if dialect == "content" else prompts
        return {"choices": choices, "usage": {"prompt_tokens": sum(map(len, counted))}}

    def _one(
        self, model: Served, dialect: str, body: Mapping[str, Any], ids: Sequence[int]
    ) -> dict[str, Any]:
        written: list[int] = []
        listed: list[dict[str, float]] = []
        stop = body.get("stop") or []
        reason = "length"
        while len(written) < body["max_tokens"]:
            scores = model.scores([*ids, *written])
            best = max(range(len(scores)), key=scores.__getitem__)
            if dialect == "texts" and best in model.ends:
                break
            listed.append(self._listed(model, dialect, body, scores))
            written.append(best)
            if best in model.ends or any(each in model.text(written) for each in stop):
                reason = "stop"
                break
        said = [each for each in written if each not in model.ends]
        text = model.text(said, control=dialect != "content")
        kept = body.get("include_stop_str_in_output") and dialect == "selects"
        for each in stop:
            text = text if kept else text.partition(each)[0]
        found: dict[str, Any] = {"text": text, "finish_reason": reason, "logprobs": None}
        if _MOST[dialect] and body.get("logprobs"):
            found["logprobs"] = {"top_logprobs": listed}
        if dialect == "content":
            found["logprobs"] = {"content": self._content(model, written, listed, stop)}
        if dialect == "selects" and body.get("return_token_ids"):
            found |= {"token_ids": written, "prompt_token_ids": [*ids]}
        return found

    @staticmethod
    def _content(
        model: Served, written: list[int], listed: list[dict[str, float]], stop: Sequence[str]
    ) -> list[dict[str, Any]]:
        end = len(written)
        for each in stop:
            if each in model.text(written):
                # So many tokens as it has by itself, whether or not it was written as these.
                end -= len(model.tokenizer.encode(each, add_special_tokens=False).ids)
        steps = []
        for id_, likely in [*zip(written, listed, strict=True)][: max(end, 0)]:
            top = [{"id": int(name[9:]), "logprob": value} for name, value in likely.items()]
            steps.append({"id": id_, "top_logprobs": top})
        return steps

    def _listed(
        self, model: Served, dialect: str, body: Mapping[str, Any], scores: list[float]
    ) -> dict[str, float]:
        wanted = body.get("logprob_token_ids") if dialect == "selects" else None
        best = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)
        shown = {best[0], *wanted} if wanted else best[: body.get("logprobs") or 0]
        by_id = dialect == "content" or (
            dialect != "plain" and body.get("return_tokens_as_token_ids")
        )
        if dialect == "texts":
            # Tokens of the same name hide each other.
            return {model.named(id_): scores[id_] for id_ in shown}
        return {f"token_id:{id_}" if by_id else model.text([id_]): scores[id_] for id_ in shown}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    completions: Completions
    fault: ClassVar[dict[str, Any]] = {"kind": None}
    seen: ClassVar[dict[str, Any]] = {"completions": 0, "most": 0, "keys": []}
    delay = 0.0
    now = 0
    lock = threading.Lock()

    def log_message(self, format: str, *args: Any) -> None: ...

    def do_GET(self) -> None:
        if self.path == "/seen":
            self._send(200, self.seen)
        elif self.path.endswith("/v1/models"):
            room: dict[str, Any] = {"max_model_len": self.completions.room}
            if self.path.startswith("/content/"):
                room = {"meta": {"n_ctx": self.completions.room}}
            self._send(200, {"data": [{"id": each, **room} for each in self.completions.models]})
        else:
            self._send(404, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/fault":
            Handler.fault = body
            return self._send(200, {})
        if self.path in ("/texts/extras/tokenize", "/logitless/extras/tokenize"):
            tokenizer = self.completions.models[body["model"]].tokenizer
            return self._send(200, {"tokens": tokenizer.encode(body["input"]).ids})
        if not self.path.endswith("/completions"):
            return self._send(404, {})
        with self.lock:
            Handler.now += 1
            self.seen["completions"] += 1
            self.seen["most"] = max(self.seen["most"], Handler.now)
            if (key := self.headers["Authorization"]) not in self.seen["keys"]:
                self.seen["keys"].append(key)
        try:
            self._answer(body)
        finally:
            with self.lock:
                Handler.now -= 1

    def _answer(self, body: dict[str, Any]) -> None:
        time.sleep(self.delay)
        kind = self.fault["kind"]
        if kind == "hang":
            while self.fault["kind"] == "hang":
                time.sleep(0.02)
            self.close_connection = True
            return
        if kind == "status":
            said = self.fault.get("body", body)
            return self._send(self.fault["status"], said, **self.fault.get("headers", {}))
        try:
            found = self.completions.complete(self.path.split("/")[1], body)
        except Refused as refused:
            # OpenAI's way of saying it, and FastAPI's.
            plainly = self.path.startswith("/strings/")
            said = {"detail": str(refused)} if plainly else {"error": {"message": str(refused)}}
            return self._send(refused.status, said)
        if kind in _SPOILED:
            _SPOILED[kind](found)
        payload = json.dumps(found).encode()
        if kind == "garbage":
            payload = b"\x00<html>" + payload[:30]
        self._send(200, payload, cut=kind == "truncated")

    def _send(self, status: int, found: Any, *, cut: bool = False, **headers: str) -> None:
        payload = found if isinstance(found, bytes) else json.dumps(found).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(payload)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(payload[: len(payload) // 2] if cut else payload)
        self.close_connection = self.close_connection or cut


def _each(found: dict[str, Any], change: Callable[[dict[str, float]], None]) -> None:
    for choice in found["choices"]:
        for step in choice["logprobs"]["top_logprobs"]:
            change(step)


_SPOILED: Mapping[str, Callable[[dict[str, Any]], None]] = {
    "nan": lambda found: _each(found, lambda step: step.update(dict.fromkeys(step, math.nan))),
    "above one": lambda found: _each(found, lambda step: step.update(dict.fromkeys(step, 3.0))),
    "texts": lambda found: _each(found, lambda step: step.update(dict.fromkeys(step, "0"))),
    "nothing listed": lambda found: _each(found, dict.clear),
    "impossible": lambda found: _each(found, lambda step: step.update(dict.fromkeys(step, -9999))),
    "left out": lambda found: _each(found, lambda step: step.pop(max(step)) and None),
    "cut off": lambda found: found["usage"].update(prompt_tokens=7),
    "no choices": lambda found: found.update(choices=[]),
    "long numbers": lambda found: _each(
        found, lambda step: step.update(dict.fromkeys(step, 10**400))
    ),
    "no index": lambda found: found["choices"][0].update(index=[0]),
    "swapped": lambda found: found["choices"][0].update(index=5),
}
SPOILED = (*_SPOILED, "garbage", "truncated")
"""The ways in which an answer can be none."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, address: Any) -> None: ...


def _main(options: dict[str, Any]) -> None:
    # Progress bars; only events belong there.
    with contextlib.redirect_stderr(io.StringIO()):
        models = {name: Served(Path(folder)) for name, folder in options.get("models", {}).items()}
    if "word" in options:
        models["word"] = Served(Path(options["folder"]), options["word"])
    Handler.completions = Completions(models, options.get("room", 4096))
    Handler.delay = options.get("delay", 0.0)
    with _Server(("127.0.0.1", options.get("port", 0)), Handler) as server:
        print(
            json.dumps({"event": "listening", "port": server.server_port}),
            file=sys.stderr,
            flush=True,
        )
        server.serve_forever()


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
