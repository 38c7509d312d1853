"""The error tree.

    SafeguardError
    ├── ConfigurationError (ValueError)   a value given to the library is wrong
    │   ├── PolicyError                   a policy is wrong; knows its file and line
    │   └── ReviewSetupError              a person cannot be asked, or answered with nonsense
    ├── UnreadableInputError (TypeError)  a value to check cannot be read as a conversation
    ├── MissingExtraError (ImportError)   an optional package is not installed
    ├── GuardError                        a guard gave no usable verdict
    │   ├── GuardLoadError                its weights or files cannot be loaded
    │   ├── GuardTimeoutError             it did not answer in time            (retryable)
    │   ├── GuardConnectionError          it could not be reached              (retryable)
    │   └── GuardOutputError              its answer cannot be read
    ├── EscalationError                   a handler could not do its work
    │   └── ReviewError                   the review queue could not do its work
    │       ├── UnknownTicketError (LookupError)   it has no such ticket
    │       ├── TicketDecidedError        somebody has decided it already; carries the ticket
    │       └── ReviewTimeoutError (TimeoutError)  nobody has decided it in time
    └── ContentBlockedError               the policy blocked a text; carries the decision

No message of this tree holds the text that was checked.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_safeguard.decision import Decision
    from langchain_safeguard.review.ticket import Ticket


class SafeguardError(Exception):
    """Base of every error this library raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle without the constructor, whose arguments differ from `args`."""
        return type(self).__new__, (type(self), *self.args), self.__dict__


class ConfigurationError(SafeguardError, ValueError):
    """A value given to the library is wrong; the message names it and what is allowed."""

    @classmethod
    def unknown(cls, what: str, value: object, allowed: Iterable[object]) -> ConfigurationError:
        """Build the usual message for a value that is not in a closed set."""
        return cls(f"unknown {what} {value!r}; allowed: {', '.join(map(str, allowed))}")


class PolicyError(ConfigurationError):
    """A policy is wrong.

    Attributes:
        path: The file it was read from, or `None`.
        line: The line in that file, counted from 1, or `None`.
    """

    def __init__(self, message: str, *, path: str | None = None, line: int | None = None) -> None:
        """Put the place, where known, in front of the message."""
        place = f"{path or 'policy'}, line {line}: " if line else f"{path}: " if path else ""
        super().__init__(f"{place}{message}")
        self.message = message
        self.path = path
        self.line = line


class ReviewSetupError(ConfigurationError):
    """A person cannot be asked as things are set up, or what came back is no decision.

    Unlike other errors of handlers it reaches the caller, who alone can put it right; nothing
    passes meanwhile.
    """


class UnreadableInputError(SafeguardError, TypeError):
    """A value to check cannot be read as a conversation."""


class MissingExtraError(SafeguardError, ImportError):
    """An optional package is not installed; the message says which extra brings it."""

    def __init__(self, package: str, extra: str) -> None:
        """Name the package that is missing and the extra to install."""
        super().__init__(
            f"{package!r} is not installed; run: pip install 'langchain-safeguard[{extra}]'"
        )
        self.package = package
        self.extra = extra


class GuardError(SafeguardError):
    """A guard gave no usable verdict."""

    is_retryable = False
    """Whether asking again may help. `Safeguard` retries only these."""


class GuardLoadError(GuardError):
    """A guard's weights or files cannot be loaded."""


class GuardTimeoutError(GuardError):
    """A guard did not answer in time."""

    is_retryable = True


class GuardConnectionError(GuardError):
    """A guard could not be reached."""

    is_retryable = True


class GuardOutputError(GuardError):
    """A guard's answer cannot be read as a verdict."""


class EscalationError(SafeguardError):
    """An escalation handler could not do its work."""


class ReviewError(EscalationError):
    """The review queue could not do its work, for example because its database is away."""


class UnknownTicketError(ReviewError, LookupError):
    """The review queue has no ticket of that id."""


class TicketDecidedError(ReviewError):
    """Somebody has decided this ticket already.

    Attributes:
        ticket: The ticket as it was decided.
    """

    def __init__(self, ticket: Ticket) -> None:
        """Say who decided what, and when."""
        who = f" by {ticket.reviewer!r}" if ticket.reviewer else ""
        when = f" at {ticket.decided_at.isoformat()}" if ticket.decided_at else ""
        super().__init__(f"ticket {ticket.id} was {ticket.status} already{who}{when}")
        self.ticket = ticket


class ReviewTimeoutError(ReviewError, TimeoutError):
    """Nobody has decided a ticket in time."""


class ContentBlockedError(SafeguardError):
    """The policy blocked a text.

    Attributes:
        decision: What was decided. The message names its categories, never the text.
    """

    def __init__(self, decision: Decision) -> None:
        """Describe the decision without the text that led to it."""
        named = ", ".join(decision.categories) or "no category"
        held = f"; held for review as ticket {decision.ticket}" if decision.ticket else ""
        super().__init__(
            f"{decision.side} blocked ({named}; decision {decision.decision_id}{held})"
        )
        self.decision = decision
