"""The hub of the tests is one that huggingface_hub and transformers believe."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.hub_server import Hub, Repo
from tests.tiny_classifiers import folder

FILES = {
    "config.json": b'{"a": 1}',
    "model.safetensors": bytes(range(256)) * 4000,
    "empty.txt": b"",
    "original/params.json": b"{}",
    "\ube75 notes.txt": "빵".encode(),
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    root = tmp_path / "checkpoint"
    for name, content in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def contents(root: str | Path) -> dict[str, bytes]:
    paths = [path for path in Path(root).rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def test_a_snapshot_is_the_folder(checkpoint: Path, tmp_path: Path) -> None:
    with Hub({"owner/model": checkpoint}) as hub:
        found = snapshot_download("owner/model", endpoint=hub.url, cache_dir=tmp_path / "cache")
        assert contents(found) == FILES
        assert Path(found).name == Repo(checkpoint).commit
        assert any(request.startswith("GET /owner/model/resolve/") for request in hub.requests)
        hub.forget()
        again = snapshot_download("owner/model", endpoint=hub.url, cache_dir=tmp_path / "cache")
        assert again == found
        assert not any("resolve" in request and "GET" in request for request in hub.requests)


def test_only_the_patterns_asked_for(checkpoint: Path, tmp_path: Path) -> None:
    with Hub({"owner/model": checkpoint}) as hub:
        found = snapshot_download(
            "owner/model",
            endpoint=hub.url,
            cache_dir=tmp_path / "cache",
            allow_patterns=["*.json", "*.safetensors"],
            ignore_patterns=["original/*"],
        )
    assert set(contents(found)) == {"config.json", "model.safetensors"}


def test_revisions(checkpoint: Path, tmp_path: Path) -> None:
    repo = Repo(checkpoint, revisions=("main", "v1.0"))
    with Hub({"owner/model": repo}) as hub:
        for revision in ("v1.0", repo.commit):
            found = snapshot_download(
                "owner/model", revision=revision, endpoint=hub.url, cache_dir=tmp_path / "cache"
            )
            assert Path(found).name == repo.commit
        with pytest.raises(RevisionNotFoundError):
            snapshot_download(
                "owner/model", revision="v2", endpoint=hub.url, cache_dir=tmp_path / "cache"
            )


def test_what_is_not_there(checkpoint: Path, tmp_path: Path) -> None:
    with Hub({"owner/model": checkpoint}) as hub:
        with pytest.raises(RepositoryNotFoundError):
            snapshot_download("owner/modell", endpoint=hub.url, cache_dir=tmp_path / "cache")
        with pytest.raises(RemoteEntryNotFoundError):
            hf_hub_download(
                "owner/model", "pytorch.bin", endpoint=hub.url, cache_dir=tmp_path / "cache"
            )


@pytest.mark.parametrize("token", [False, "hf_of_somebody_else"])
def test_a_gated_repository_shows_its_names_and_keeps_its_files(
    checkpoint: Path, tmp_path: Path, token: bool | str
) -> None:
    repo = Repo(checkpoint, gated=True)
    with Hub({"owner/model": repo}) as hub:
        info = HfApi(endpoint=hub.url).model_info("owner/model", token=token)
        assert (info.sha, info.gated) == (repo.commit, "manual")
        with pytest.raises(GatedRepoError):
            snapshot_download(
                "owner/model", endpoint=hub.url, cache_dir=tmp_path / "cache", token=token
            )
        found = snapshot_download(
            "owner/model", endpoint=hub.url, cache_dir=tmp_path / "cache", token=repo.token
        )
        assert contents(found) == FILES


def test_a_private_repository_does_not_exist_for_others(checkpoint: Path, tmp_path: Path) -> None:
    repo = Repo(checkpoint, private=True)
    with Hub({"owner/model": repo}) as hub:
        for token in (False, "hf_of_somebody_else"):
            with pytest.raises(RepositoryNotFoundError):
                snapshot_download(
                    "owner/model", endpoint=hub.url, cache_dir=tmp_path / "cache", token=token
                )
        api = HfApi(endpoint=hub.url, token=repo.token)
        assert api.model_info("owner/model").private


def test_a_download_can_go_on_where_it_stopped(checkpoint: Path) -> None:
    with Hub({"owner/model": checkpoint}) as hub:
        asked = Request(f"{hub.url}/owner/model/resolve/main/model.safetensors")
        asked.add_header("Range", "bytes=1000-")
        with urlopen(asked) as response:
            assert response.status == 206
            assert response.read() == FILES["model.safetensors"][1000:]


def test_a_hub_that_is_broken_or_gone(checkpoint: Path, tmp_path: Path) -> None:
    with Hub({"owner/model": checkpoint}) as hub:
        hub.breaks(500)
        with pytest.raises((HfHubHTTPError, LocalEntryNotFoundError)):
            snapshot_download("owner/model", endpoint=hub.url, cache_dir=tmp_path / "cache")
        hub.breaks(None)
        found = snapshot_download("owner/model", endpoint=hub.url, cache_dir=tmp_path / "cache")
    again = snapshot_download("owner/model", endpoint=hub.url, cache_dir=tmp_path / "cache")
    assert again == found
    with pytest.raises(LocalEntryNotFoundError):
        snapshot_download("owner/other", endpoint=hub.url, cache_dir=tmp_path / "cache")


def test_transformers_loads_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Hub({"owner/classifier": folder("bert")}) as hub:
        hub.use(monkeypatch, tmp_path / "home")
        model = AutoModelForSequenceClassification.from_pretrained("owner/classifier")
        tokenizer = AutoTokenizer.from_pretrained("owner/classifier")
    assert model.config.id2label[0] == "BENIGN"
    assert tokenizer("the bread")["input_ids"]
    assert (tmp_path / "home" / "hub" / "models--owner--classifier").is_dir()


def test_another_process_uses_it(checkpoint: Path, tmp_path: Path) -> None:
    repo = Repo(checkpoint, gated=True)
    code = "from huggingface_hub import snapshot_download; print(snapshot_download('owner/model'))"
    with Hub({"owner/model": repo}) as hub:
        environment = {**os.environ, **hub.environment(tmp_path / "home", repo.token)}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
    assert contents(done.stdout.strip()) == FILES
