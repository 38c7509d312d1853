"""A server that checks texts over HTTP, compatible with OpenAI's moderation endpoint."""

from typing import TYPE_CHECKING, Any

from langchain_safeguard.errors import MissingExtraError
from langchain_safeguard.server.settings import Limits, Settings

if TYPE_CHECKING:
    from langchain_safeguard.server.app import create_app

__all__ = ["Limits", "Settings", "create_app"]


def __getattr__(name: str) -> Any:
    """Import the application on first use: settings can be described without its packages."""
    if name != "create_app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from langchain_safeguard.server.app import create_app
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in ("fastapi", "starlette", "uvicorn", "prometheus_client"):
            raise
        raise MissingExtraError(package, "server") from error
    return create_app
