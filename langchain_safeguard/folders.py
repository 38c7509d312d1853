"""Where the files of models are: in folders, or fetched from the hub into folders."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from langchain_safeguard.errors import ConfigurationError, GuardLoadError

if TYPE_CHECKING:
    from langchain_safeguard.engines.checkpoint import Checkpoint

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_EMBEDDED_WEIGHTS = "embedded.safetensors"


def is_hub_id(name: str | Path) -> bool:
    """Tell whether a name has the form `owner/model`."""
    return _HUB_ID.fullmatch(str(name)) is not None


def embedded_folder(name: str | Path) -> Path | None:
    """Return the folder of a checkpoint in the embedded guard's format; `None` if it is none."""
    folder = Path(name)
    is_embedded = name != "embedded" and (folder / _EMBEDDED_WEIGHTS).is_file()
    return folder.resolve() if is_embedded else None


def checkpoint_folder(
    name: str | Path, revision: str | None = None, *, weights: bool = True
) -> Path:
    """Return the folder of a checkpoint, fetched from the hub if it is not a folder already.

    Raises:
        GuardLoadError: The folder holds no checkpoint, or the hub does not give it.
        GuardConnectionError: The hub cannot be reached.
    """
    folder = Path(name)
    if folder.is_dir():
        if not any((folder / each).is_file() for each in ("config.json", "adapter_config.json")):
            raise GuardLoadError(
                f"{folder} holds no checkpoint: there is neither a config.json, nor an "
                f"adapter_config.json, nor a {_EMBEDDED_WEIGHTS}"
            )
        return folder.resolve()
    from langchain_safeguard.engines.hub import download

    return download(str(name), revision, weights=weights)


def base_folder(
    checkpoint: Checkpoint,
    given: str | Path | None,
    usual: str | None,
    *,
    weights: bool = True,
) -> Path | None:
    """Return the folder of what a checkpoint needs besides itself; `None` if it is complete.

    That is the model an adapter adapts, or the model whose tokenizer a classifier reads with.

    Args:
        checkpoint: The checkpoint.
        given: What the user named.
        usual: What such a guard has, if neither the user nor the checkpoint names it.
        weights: Whether its weights are needed.

    Raises:
        ConfigurationError: Nothing names it, or it is not needed, or no such thing is known.
        GuardLoadError: It cannot be had; see `checkpoint_folder`.
    """
    tokenizer_only = checkpoint.is_classifier and not checkpoint.has_tokenizer
    if not checkpoint.adapter and not tokenizer_only:
        if given is not None:
            raise ConfigurationError(
                f"base_model={str(given)!r}, but {checkpoint.folder} is complete: it is no adapter"
            )
        return None
    base = given or checkpoint.adapter.get("base_model_name_or_path") or usual
    if base is None:
        lack = "has no tokenizer" if tokenizer_only else "is an adapter"
        raise ConfigurationError(f"{checkpoint.folder} {lack}; give base_model=")
    if not Path(base).is_dir() and not is_hub_id(base):
        raise ConfigurationError(
            f"base_model={str(base)!r} is neither a folder nor a hub id; give base_model="
        )
    folder = checkpoint_folder(base, weights=weights and not tokenizer_only)
    if not (folder / "config.json").is_file():
        raise ConfigurationError(
            f"base_model={str(base)!r} is an adapter itself; give the model that it adapts"
        )
    return folder


def fetch(name: str, revision: str | None = None) -> list[Path]:
    """Fetch a checkpoint from the hub and, if it is an adapter, its base model; return the folders.

    Raises:
        ConfigurationError: The name is no hub id.
        GuardError: It cannot be fetched; the message says what to do.
    """
    from langchain_safeguard.engines.checkpoint import Checkpoint
    from langchain_safeguard.engines.hub import download

    if not is_hub_id(name):
        raise ConfigurationError(f"{name!r} is no hub id; allowed: 'owner/model'")
    folders = [download(name, revision)]
    base = Checkpoint(folders[0]).adapter.get("base_model_name_or_path")
    if base is not None and is_hub_id(base):
        folders.append(download(base))
    return folders
