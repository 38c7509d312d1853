"""LangChain middleware that keeps unsafe text out of, and inside, LLM applications."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_safeguard.audit import AuditSink, JsonLinesSink
    from langchain_safeguard.caching.redis_verdicts import RedisVerdicts
    from langchain_safeguard.caching.verdict_cache import VerdictCache
    from langchain_safeguard.chat_models import GuardedChatModel, guard_model
    from langchain_safeguard.conversation import Conversation, Turn
    from langchain_safeguard.decision import Decision
    from langchain_safeguard.documents import DocumentGuard, GuardedRetriever, guard_retriever
    from langchain_safeguard.errors import (
        ConfigurationError,
        ContentBlockedError,
        EscalationError,
        GuardConnectionError,
        GuardError,
        GuardLoadError,
        GuardOutputError,
        GuardTimeoutError,
        MissingExtraError,
        PolicyError,
        SafeguardError,
        UnreadableInputError,
    )
    from langchain_safeguard.escalation import (
        Escalation,
        HumanReview,
        Resolution,
        SecondOpinion,
        Webhook,
        verify_signature,
    )
    from langchain_safeguard.guards import Guard, SequenceClassifier, WordVerdict
    from langchain_safeguard.holding.held import HeldResults
    from langchain_safeguard.holding.held_database import HeldDatabase
    from langchain_safeguard.loading import list_guards, load_guard
    from langchain_safeguard.policy import Action, Policy, Rule
    from langchain_safeguard.review.queue import ReviewQueue
    from langchain_safeguard.review.ticket import Ticket, with_ticket
    from langchain_safeguard.rewriters import Redact, Replace
    from langchain_safeguard.runnables import InputGuard, OutputGuard, guarded
    from langchain_safeguard.safeguard import Safeguard
    from langchain_safeguard.taxonomy import Category, Side
    from langchain_safeguard.tools import GuardedTool, guard_tool
    from langchain_safeguard.verdict import Finding, Verdict

_HOME = {
    "audit": ("AuditSink", "JsonLinesSink"),
    "caching.redis_verdicts": ("RedisVerdicts",),
    "caching.verdict_cache": ("VerdictCache",),
    "chat_models": ("GuardedChatModel", "guard_model"),
    "conversation": ("Conversation", "Turn"),
    "decision": ("Decision",),
    "documents": ("DocumentGuard", "GuardedRetriever", "guard_retriever"),
    "errors": (
        "ConfigurationError",
        "ContentBlockedError",
        "EscalationError",
        "GuardConnectionError",
        "GuardError",
        "GuardLoadError",
        "GuardOutputError",
        "GuardTimeoutError",
        "MissingExtraError",
        "PolicyError",
        "SafeguardError",
        "UnreadableInputError",
    ),
    "escalation": (
        "Escalation",
        "HumanReview",
        "Resolution",
        "SecondOpinion",
        "Webhook",
        "verify_signature",
    ),
    "guards": ("Guard", "SequenceClassifier", "WordVerdict"),
    "holding.held": ("HeldResults",),
    "holding.held_database": ("HeldDatabase",),
    "loading": ("list_guards", "load_guard"),
    "policy": ("Action", "Policy", "Rule"),
    "review.queue": ("ReviewQueue",),
    "review.ticket": ("Ticket", "with_ticket"),
    "rewriters": ("Redact", "Replace"),
    "runnables": ("InputGuard", "OutputGuard", "guarded"),
    "safeguard": ("Safeguard",),
    "taxonomy": ("Category", "Side"),
    "tools": ("GuardedTool", "guard_tool"),
    "verdict": ("Finding", "Verdict"),
}
_PACKAGE_OF = {"HeldDatabase": "sqlalchemy", "RedisVerdicts": "redis", "ReviewQueue": "sqlalchemy"}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Action",
    "AuditSink",
    "Category",
    "ConfigurationError",
    "ContentBlockedError",
    "Conversation",
    "Decision",
    "DocumentGuard",
    "Escalation",
    "EscalationError",
    "Finding",
    "Guard",
    "GuardConnectionError",
    "GuardError",
    "GuardLoadError",
    "GuardOutputError",
    "GuardTimeoutError",
    "GuardedChatModel",
    "GuardedRetriever",
    "GuardedTool",
    "HeldDatabase",
    "HeldResults",
    "HumanReview",
    "InputGuard",
    "JsonLinesSink",
    "MissingExtraError",
    "OutputGuard",
    "Policy",
    "PolicyError",
    "Redact",
    "RedisVerdicts",
    "Replace",
    "Resolution",
    "ReviewQueue",
    "Rule",
    "Safeguard",
    "SafeguardError",
    "SecondOpinion",
    "SequenceClassifier",
    "Side",
    "Ticket",
    "Turn",
    "UnreadableInputError",
    "Verdict",
    "VerdictCache",
    "Webhook",
    "WordVerdict",
    "guard_model",
    "guard_retriever",
    "guard_tool",
    "guarded",
    "list_guards",
    "load_guard",
    "verify_signature",
    "with_ticket",
]

try:
    __version__ = version("langchain-safeguard")
except PackageNotFoundError:
    __version__ = "0.0.0"


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that importing the package itself stays quick."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    """List the public names; `help()` looks at each, so none whose extra is not installed."""
    return [name for name in __all__ if find_spec(_PACKAGE_OF.get(name, __name__))]
