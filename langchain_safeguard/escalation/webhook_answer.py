"""Reading what the receiver of a webhook decided: strictly, since a guess might let a text pass."""

from __future__ import annotations

import json
from typing import Any

from langchain_safeguard.errors import EscalationError
from langchain_safeguard.escalation.base import Resolution
from langchain_safeguard.policy import Action

_ACTIONS = ("allow", "flag", "block", "rewrite")
_WITH_TEXT = ("block", "rewrite")


def read_answer(content_type: str, body: bytes) -> Resolution | None:
    """Read an answer: `{"action": ..., "text": ...}`; an action of `null` abstains.

    Raises:
        EscalationError: It is anything else. The message does not hold it.
    """
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise EscalationError("the webhook's answer is not of type application/json")
    try:
        answer = json.loads(body.decode("utf-8"), object_pairs_hook=_without_twins)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise EscalationError("the webhook's answer is not a JSON object in UTF-8")
    if "action" not in answer or set(answer) - {"action", "text"}:
        raise EscalationError("the webhook's answer has other keys than 'action' and 'text'")
    action, text = answer["action"], answer.get("text")
    if text is not None and not _is_text(text):
        raise EscalationError(f"the webhook's text is no readable text ({type(text).__name__})")
    if action is None and text is None:
        return None
    if not isinstance(action, str) or action not in _ACTIONS:
        raise EscalationError(f"the webhook's action is none of: {', '.join(_ACTIONS)}, null")
    if (text is None and action == "rewrite") or (text is not None and action not in _WITH_TEXT):
        raise EscalationError(f"{action!r} {'without' if text is None else 'with'} a text")
    return Resolution(Action.of(action), text)


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a key that is there twice: two readers may take another one of them."""
    named = dict(pairs)
    if len(named) != len(pairs):
        raise ValueError("a key is there twice")
    return named


def _is_text(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:  # Half a surrogate pair, which nobody could write on.
        return False
    return True
