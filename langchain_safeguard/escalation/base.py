"""What a handler is asked and what it may answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from langchain_core.runnables import Runnable, RunnableConfig

from langchain_safeguard.conversation import Conversation
from langchain_safeguard.decision import Decision
from langchain_safeguard.errors import (
    ConfigurationError,
    EscalationError,
    ReviewSetupError,
    UnknownTicketError,
)
from langchain_safeguard.policy import Action
from langchain_safeguard.review.ticket import Recalled
from langchain_safeguard.taxonomy import Side


@dataclass(frozen=True, slots=True)
class Escalation:
    """A text that the policy does not decide alone.

    Attributes:
        conversation: The conversation whose last part is in question.
        side: The side on which it is judged.
        decision: What led here; its `action` is `escalate`.
    """

    conversation: Conversation
    side: Side
    decision: Decision

    @property
    def text(self) -> str:
        """Return the text in question."""
        return self.conversation.checked(self.side).text


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a handler decided.

    Attributes:
        action: `allow`, `flag`, `block` or `rewrite`.
        text: The new text when rewriting; when blocking the refusal (`None`: the policy's).
        ticket: When blocking: the ticket under which a person is still to decide.

    Raises:
        ConfigurationError: The action is not one of these, it rewrites without a text, or it has a
            ticket and does not block.
    """

    action: Action
    text: str | None = None
    ticket: str | None = None

    def __post_init__(self) -> None:
        """Check the action."""
        action = Action.of(self.action)
        allowed = [a for a in Action if a is not Action.ESCALATE]
        if action not in allowed:
            raise ConfigurationError.unknown("resolution", self.action, allowed)
        if action is Action.REWRITE and self.text is None:
            raise ConfigurationError("a resolution that rewrites needs a text")
        if self.ticket is not None and action is not Action.BLOCK:
            raise ConfigurationError("a resolution with a ticket blocks until that is decided")
        object.__setattr__(self, "action", action)


@runtime_checkable
class Recalls(Protocol):
    """A handler that holds answers for a person, and gives them back unchanged."""

    def recall(self, prompt: Conversation, side: Side, config: RunnableConfig) -> Recalled | None:
        """Return the answer to this prompt that is held, if the config hands in its ticket.

        Raises:
            UnknownTicketError: It has none of the tickets.
        """


def recalled(
    handlers: Iterable[object], prompt: Conversation, side: Side, config: RunnableConfig
) -> Recalled | None:
    """Return the answer to a prompt that one of the handlers holds; see `Recalls`.

    Raises:
        ReviewSetupError: None of them has the tickets that are handed in.
    """
    holders = [each for each in handlers if isinstance(each, Recalls)]
    unknown: list[UnknownTicketError] = []
    for holder in holders:
        try:
            found = holder.recall(prompt, side, config)
        except UnknownTicketError as error:
            unknown.append(error)
            continue
        if found is not None:
            return found
    if unknown and len(unknown) == len(holders):
        raise ReviewSetupError(str(unknown[-1]))
    return None


Answer = Resolution | str | None
"""A resolution, or just its action's name; `None` means: ask the next one."""

Handler = Callable[[Escalation], Answer | Awaitable[Answer]] | Runnable[Escalation, Answer]


def resolution_of(answer: object) -> Resolution | None:
    """Read what a handler answered.

    Raises:
        EscalationError: It is nothing a handler may answer.
    """
    if answer is None or isinstance(answer, Resolution):
        return answer
    if isinstance(answer, str) and answer in ("allow", "flag", "block"):
        return Resolution(Action.of(answer))
    raise EscalationError(
        f"a handler answered with a {type(answer).__name__}; allowed: a Resolution, 'allow', "
        "'flag', 'block', or None for 'ask the next one'"
    )
