"""Letting a `GuardedChatModel` check the answers of a chat model.

Steps whose output is unchecked run hushed, so nobody hears of a model among them. But where the
model stands directly in front of the `OutputGuard`, it can be a guarded one: then its events, token
counts and LangGraph's `messages` carry the checked answer, as those of any model do.

Batches do without: there all answers are checked in one pass of the guard. So do parallel checks,
where nothing may be heard before the verdict on the input, guards that word the refusal, and models
whose prompt was made by other steps that are guarded.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.prompts import BasePromptTemplate
from langchain_core.runnables import Runnable
from langchain_core.runnables.base import RunnableBindingBase

from langchain_safeguard.chat_models.guarded import GuardedChatModel
from langchain_safeguard.hushed import muted
from langchain_safeguard.runnables.closing import ClosingSequence, joined
from langchain_safeguard.runnables.flow import Plan


def prepared(plan: Plan, *, alone: bool = True) -> Plan:
    """Return a plan as it is run: a model checks its own answers, or nobody hears the steps.

    Args:
        plan: The plan as it was written.
        alone: Whether it is run for one input only.
    """
    if alone and _can_delegate(plan):
        return _with_guarded_model(plan)
    if plan.exit is None:
        return plan
    return replace(plan, lead=_muted(plan.lead), steps=_muted(plan.steps))


def _can_delegate(plan: Plan) -> bool:
    if plan.exit is None or plan.exit.refusal is not None or plan.steps is None:
        return False
    if plan.entry is not None and plan.mode == "parallel":
        return False
    if plan.lead is not None:
        # What these steps made goes into the model, and may be as unsafe as an answer.
        return False
    *prompts, model = _parts(plan.steps)
    return _is_chat_model(model) and all(isinstance(p, BasePromptTemplate) for p in prompts)


def _with_guarded_model(plan: Plan) -> Plan:
    assert plan.exit is not None and plan.steps is not None
    *prompts, model = _parts(plan.steps)
    guarded = GuardedChatModel(
        model=model,
        safeguard=plan.exit.safeguard,
        check_input=False,
        on_block=plan.exit.on_block,
        check_every=plan.check_every,
    )
    return replace(plan, steps=joined([*prompts, guarded]), exit=None)


def _muted(steps: Runnable[Any, Any] | None) -> Runnable[Any, Any] | None:
    return None if steps is None else muted(steps)


def _parts(steps: Runnable[Any, Any]) -> list[Runnable[Any, Any]]:
    return steps.steps if type(steps) is ClosingSequence else [steps]


def _is_chat_model(runnable: Runnable[Any, Any]) -> bool:
    while isinstance(runnable, RunnableBindingBase):
        runnable = runnable.bound
    return isinstance(runnable, BaseChatModel)
