"""Middleware for agents that `langchain.agents.create_agent` builds."""

from langchain_safeguard.errors import MissingExtraError
from langchain_safeguard.middleware.user_turns import WITHHELD

try:
    from langchain_safeguard.middleware.safeguard_middleware import SafeguardMiddleware
    from langchain_safeguard.middleware.tool_guard import ToolGuardMiddleware
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("langchain", "langgraph"):
        raise
    raise MissingExtraError("langchain", "agents") from error

__all__ = ["WITHHELD", "SafeguardMiddleware", "ToolGuardMiddleware"]
