"""Plans: generators that yield the work they want done and get the results sent in.

The order of what happens stands once, in the plan; `drive` and `adrive` only do the work, so that
sync and async cannot differ.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

Step = TypeVar("Step")
Result = TypeVar("Result")


def drive(plan: Generator[Step, Any, Result], perform: Callable[[Step], Any]) -> Result:
    """Carry out a plan.

    Args:
        plan: The plan.
        perform: Does one step. An error it raises is raised inside the plan, which may handle it.

    Returns:
        What the plan returns.
    """
    proceed, outcome = plan.send, None
    while True:
        try:
            step = proceed(outcome)
        except StopIteration as done:
            result: Result = done.value
            return result
        try:
            proceed, outcome = plan.send, perform(step)
        except Exception as error:
            proceed, outcome = plan.throw, error


async def adrive(
    plan: Generator[Step, Any, Result], perform: Callable[[Step], Awaitable[Any]]
) -> Result:
    """Carry out a plan without blocking the event loop; see `drive`."""
    proceed, outcome = plan.send, None
    while True:
        try:
            step = proceed(outcome)
        except StopIteration as done:
            result: Result = done.value
            return result
        try:
            proceed, outcome = plan.send, await perform(step)
        except Exception as error:
            proceed, outcome = plan.throw, error
