"""Escalating an answer inside the model call, where nobody can be waited for.

A handler that interrupts the run ends the model call, and LangGraph makes the whole call again when
the run goes on. The model may then say something else, and what a person decided about the first
answer would hold for the second. So an interrupt counts as "could not decide" here.
"""

from __future__ import annotations

from copy import copy
from typing import Any

from langchain_safeguard.calling import acall_handler, call_handler
from langchain_safeguard.errors import EscalationError
from langchain_safeguard.escalation import Escalation, Handler
from langchain_safeguard.flow import is_control_flow
from langchain_safeguard.safeguard import Safeguard


def without_interrupts(safeguard: Safeguard) -> Safeguard:
    """Return the same decision path, whose handlers cannot interrupt the run."""
    if not safeguard.handlers:
        return safeguard
    bounded = copy(safeguard)
    bounded.handlers = {name: _Bounded(each) for name, each in safeguard.handlers.items()}
    return bounded


class _Bounded:
    """A handler that decides at once or not at all."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    def __call__(self, escalation: Escalation) -> Any:
        try:
            return call_handler(self._handler, escalation)
        except Exception as error:
            raise _failure(error) from None

    async def acall(self, escalation: Escalation) -> Any:
        try:
            return await acall_handler(self._handler, escalation)
        except Exception as error:
            raise _failure(error) from None


def _failure(error: Exception) -> Exception:
    if not is_control_flow(error):
        return error
    return EscalationError("an answer of an agent's model cannot wait for a person")
