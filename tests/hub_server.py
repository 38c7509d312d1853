"""A tiny model hub on this machine: folders served as `huggingface_hub` expects it."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import pytest

_LARGE = (".safetensors", ".bin", ".model")
"""Files that the hub keeps apart, as Git LFS does; they are named by their sha256."""
_API = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)(?:/(?P<what>revision|tree)/(?P<rest>.+))?")
_FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")


@dataclass
class Repo:
    """A folder as a repository.

    Attributes:
        folder: Its files; they must not change while it is served.
        gated: Whether files are given only to those who show the token.
        private: Whether it does not exist for those who do not show the token.
        token: The token that opens it.
        revisions: Branches and tags.
    """

    folder: Path
    gated: bool = False
    private: bool = False
    token: str = "hf_opens_everything"
    revisions: tuple[str, ...] = ("main",)

    @cached_property
    def files(self) -> dict[str, bytes]:
        """Return the contents by path."""
        found = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in found}

    @cached_property
    def commit(self) -> str:
        """Return the one commit: 40 hexadecimal digits that depend on the files."""
        named = "".join(f"{path} {_tag(path, file)}\n" for path, file in self.files.items())
        return hashlib.sha1(named.encode()).hexdigest()

    def listing(self, folder: str, deep: bool) -> list[dict[str, Any]]:
        """Return what is in a folder of it."""
        entries: dict[str, dict[str, Any]] = {}
        begin = f"{folder}/" if folder else ""
        for path, file in self.files.items():
            if not path.startswith(begin):
                continue
            parts = path.removeprefix(begin).split("/")
            for depth in range(1, len(parts)):
                inside = begin + "/".join(parts[:depth])
                oid = hashlib.sha1(inside.encode()).hexdigest()
                if deep or depth == 1:
                    entries[inside] = {"type": "directory", "oid": oid, "size": 0, "path": inside}
            if deep or len(parts) == 1:
                entries[path] = _entry(path, file)
        return [*entries.values()]


@dataclass
class _State:
    repos: dict[str, Repo] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    broken: int | None = None
    connections: set[socket.socket] = field(default_factory=set)


class Hub:
    """Serves repositories on a port of the loopback interface, in a thread.

    Attributes:
        url: What to set `HF_ENDPOINT` to.

    Example:
        ```python
        with Hub({"owner/model": folder}) as hub:
            snapshot_download("owner/model", endpoint=hub.url)
        ```
    """

    def __init__(self, repos: Mapping[str, Path | Repo]) -> None:
        """Bind the port; nothing is served yet."""
        made = {name: r if isinstance(r, Repo) else Repo(r) for name, r in repos.items()}
        self._state = state = _State(made)

        class Handler(_Handler):
            hub = state

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        """Begin to serve."""
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop; from now on nobody listens, on connections that are still open either."""
        self._server.shutdown()
        self._server.server_close()
        for connection in [*self._state.connections]:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @property
    def requests(self) -> list[str]:
        """Return what was asked so far, such as `"GET /owner/model/resolve/main/config.json"`."""
        return [*self._state.requests]

    def forget(self) -> None:
        """Forget what was asked."""
        self._state.requests.clear()

    def breaks(self, status: int | None) -> None:
        """Answer everything with this HTTP status, such as 503; `None` mends it."""
        self._state.broken = status

    def environment(self, home: Path, token: str | None = None) -> dict[str, str]:
        """Return the variables with which another process uses this hub and a cache of its own."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_TOKEN_PATH": str(home / "token"),
            "HF_TOKEN": token or "",
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
        }

    def use(self, monkeypatch: pytest.MonkeyPatch, home: Path, token: str | None = None) -> None:
        """Make this process use the hub and a cache of its own, until the test ends."""
        for name, value in self.environment(home, token).items():
            monkeypatch.setenv(name, value)
        # Read from the environment when the package was imported.
        for name, constant in (
            ("ENDPOINT", self.url),
            (
                "HUGGINGFACE_CO_URL_TEMPLATE",
                f"{self.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
            ),
            ("HF_HOME", str(home)),
            ("HF_HUB_CACHE", str(home / "hub")),
            ("HF_TOKEN_PATH", str(home / "token")),
            ("HF_HUB_OFFLINE", False),
        ):
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", constant)


class _Handler(BaseHTTPRequestHandler):
    """Answers one request after another on a connection."""

    protocol_version = "HTTP/1.1"
    hub: _State

    def setup(self) -> None:
        """Note the connection."""
        super().setup()
        self.hub.connections.add(self.connection)

    def finish(self) -> None:
        """Forget it."""
        self.hub.connections.discard(self.connection)
        super().finish()

    def do_HEAD(self) -> None:
        """Answer without a body."""
        self._answer()

    def do_GET(self) -> None:
        """Answer."""
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if self.hub.broken is not None:
            self._send(self.hub.broken, b"")
        elif match := _API.fullmatch(path):
            self._api(match["repo"], match["what"] or "revision", match["rest"] or "main")
        elif match := _FILE.fullmatch(path):
            self._file(match["repo"], match["revision"], match["path"])
        else:
            self._refuse(404, "NotFound")

    def _api(self, name: str, what: str, rest: str) -> None:
        revision, _, folder = rest.partition("/") if what == "tree" else (rest, "", "")
        repo = self._repo(name, revision)
        if repo is None:
            return
        if what == "revision":
            siblings = [{"rfilename": path} for path in repo.files]
            gated = "manual" if repo.gated else False
            facts = {"id": name, "modelId": name, "sha": repo.commit, "siblings": siblings}
            self._json(facts | {"private": repo.private, "gated": gated, "tags": []})
        elif listing := repo.listing(folder, "recursive=true" in self.path.lower()):
            self._json(listing)
        else:
            self._refuse(404, "EntryNotFound", {"X-Repo-Commit": repo.commit})

    def _file(self, name: str, revision: str, path: str) -> None:
        repo = self._repo(name, revision)
        if repo is None:
            return
        if repo.gated and not self._opens(repo):
            # Who is known but not admitted is told apart from who is not known.
            self._refuse(403 if self.headers["Authorization"] else 401, "GatedRepo")
            return
        commit = {"X-Repo-Commit": repo.commit}
        file = repo.files.get(path)
        if file is None:
            self._refuse(404, "EntryNotFound", commit)
            return
        headers = {**commit, "ETag": f'"{_tag(path, file)}"', "Accept-Ranges": "bytes"}
        if path.endswith(_LARGE):
            headers |= {"X-Linked-Size": str(len(file)), "X-Linked-ETag": headers["ETag"]}
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        if wanted is None:
            self._send(200, file, headers)
            return
        begin = int(wanted[1])
        headers["Content-Range"] = f"bytes {begin}-{len(file) - 1}/{len(file)}"
        self._send(206, file[begin:], headers)

    def _repo(self, name: str, revision: str) -> Repo | None:
        """Return a repository if there is one for who asks, with that revision; else refuse."""
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and not self._opens(repo)):
            self._refuse(404 if self.headers["Authorization"] else 401, "RepoNotFound")
            return None
        if revision not in (*repo.revisions, repo.commit):
            self._refuse(404, "RevisionNotFound")
            return None
        return repo

    def _opens(self, repo: Repo) -> bool:
        return self.headers["Authorization"] == f"Bearer {repo.token}"

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str, headers: Mapping[str, str] | None = None) -> None:
        self._send(status, b"", {"X-Error-Code": code, "X-Error-Message": code, **(headers or {})})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _tag(path: str, file: bytes) -> str:
    """Return the name of a content: that of git, or of Git LFS."""
    if path.endswith(_LARGE):
        return hashlib.sha256(file).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(file) + file).hexdigest()


def _entry(path: str, file: bytes) -> dict[str, Any]:
    oid = hashlib.sha1(b"blob %d\0" % len(file) + file).hexdigest()
    entry = {"type": "file", "oid": oid, "size": len(file), "path": path}
    if path.endswith(_LARGE):
        entry["lfs"] = {"oid": _tag(path, file), "size": len(file), "pointerSize": 134}
    return entry
