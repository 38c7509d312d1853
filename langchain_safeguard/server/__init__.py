"""A server that checks texts over HTTP, compatible with OpenAI's moderation endpoint."""

from langchain_safeguard.errors import MissingExtraError

try:
    from langchain_safeguard.server.app import create_app
    from langchain_safeguard.server.settings import Limits, Settings
except ModuleNotFoundError as error:
    package = (error.name or "").partition(".")[0]
    if package not in ("fastapi", "starlette", "uvicorn", "prometheus_client"):
        raise
    raise MissingExtraError(package, "server") from error

__all__ = ["Limits", "Settings", "create_app"]
