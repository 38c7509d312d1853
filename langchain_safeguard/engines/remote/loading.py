"""Building the engine that asks servers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from langchain_safeguard.engines.answering import POSITIONS, ROOM
from langchain_safeguard.engines.checkpoint import Checkpoint
from langchain_safeguard.engines.remote.servers import Servers
from langchain_safeguard.engines.tokens import PromptTokenizer, load_tokenizer
from langchain_safeguard.errors import MissingExtraError

if TYPE_CHECKING:
    from langchain_safeguard.engines.remote.engine import RemoteEngine


def remote_engine(
    servers: Servers, checkpoint: Checkpoint, folder: Path, max_tokens: int | None, name: str
) -> RemoteEngine:
    """Build an engine around servers, and make sure that they run the model.

    Args:
        servers: The servers.
        checkpoint: What is known here of the model; its weights are not needed.
        folder: Where its tokenizer is.
        max_tokens: The most tokens that the model reads at once.
        name: What the engine is called.

    Raises:
        MissingExtraError: httpx is not installed.
        GuardLoadError: The tokenizer cannot be loaded, or a server does not run the model as it
            must.
        GuardConnectionError: No server can be reached.
    """
    try:
        from langchain_safeguard.engines.remote.engine import RemoteEngine
    except ImportError as error:
        if error.name != "httpx":
            raise
        raise MissingExtraError("httpx", "remote") from None
    tokenizer = PromptTokenizer(load_tokenizer(folder))
    limit = min(checkpoint.positions or POSITIONS, max_tokens or POSITIONS) - ROOM
    return RemoteEngine(servers, tokenizer, limit=limit, name=name)
