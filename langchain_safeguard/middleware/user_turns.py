"""Checking what users said in an agent's conversation, each turn once.

A turn is all that was said between two answers. Logic only: `review` is a generator that yields the
conversations it wants judged and gets decisions sent in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass

from langchain_core.messages import BaseMessage, HumanMessage, RemoveMessage, ToolMessage

from langchain_safeguard.conversation import Conversation
from langchain_safeguard.decision import Decision
from langchain_safeguard.refusal import RECORD, rewritten_input

WITHHELD = "[This message was withheld.]"
"""What stands in an agent's state in place of a user's turn that was blocked."""


@dataclass(frozen=True, slots=True)
class Review:
    """What became of the users' turns.

    Attributes:
        updates: The messages of the state that change, or go.
        known: Marks of all turns that need no check from now on.
        refused: The decision that blocked the turn to be answered now, if one did.
        checked: Whether anything was judged.
    """

    updates: list[BaseMessage]
    known: list[str]
    refused: Decision | None
    checked: bool


def review(
    messages: Sequence[BaseMessage],
    known: Collection[str],
    *,
    quarantine: bool,
    begun: bool,
) -> Generator[Conversation, Decision, Review]:
    """Check the turns that are not known yet, the oldest first.

    Each is judged in the context of what is left of the turns before it. A turn that is blocked
    but has an answer already (its conversation was restored from elsewhere) does not end the run.

    Args:
        messages: The state of the agent.
        known: What an earlier review returned.
        quarantine: Whether the text of a blocked turn goes out of the state.
        begun: Whether an answer that stands at the end may come from the caller, who wants the
            model to go on with it; it is then judged with the turn in front of it.
    """
    turns = _turns(messages, begun)
    kept: list[BaseMessage] = []
    refused: Decision | None = None
    checked = False
    for at, turn in enumerate(turns):
        if all(mark(message) in known for message in turn if _is_input(message, turn)):
            kept += turn
            continue
        decision = yield Conversation.of([*kept, *turn])
        checked = True
        if decision.blocked:
            refused = decision if at == len(turns) - 1 else None
            kept += _quarantined(turn, decision) if quarantine else turn
        elif decision.passes:
            kept += turn
        else:
            kept += rewritten_input(turn, decision)
    judged = [message for message in kept if _role(message) == "user"]
    return Review(_updates(messages, kept), [*map(mark, judged)], refused, checked)


def mark(message: BaseMessage) -> str:
    """Return what tells a message from any other one: its id and all that can be read of it."""
    [turn] = Conversation.of(message).turns
    facts = (message.id, turn.role, turn.text, turn.unchecked)
    return hashlib.sha256(repr(facts).encode("utf-8", "backslashreplace")).hexdigest()[:24]


def _turns(messages: Sequence[BaseMessage], begun: bool) -> list[list[BaseMessage]]:
    """Cut the messages into turns; the answers that lead there stand in lists of their own."""
    turns: list[list[BaseMessage]] = []
    for message in messages:
        answers = _role(message) == "assistant"
        if not turns or answers != (_role(turns[-1][-1]) == "assistant"):
            turns.append([])
        turns[-1].append(message)
    if begun and len(turns) > 1 and _role(turns[-1][-1]) == "assistant":
        turns[-2:] = [[*turns[-2], *turns[-1]]]
    return turns


def _is_input(message: BaseMessage, turn: Sequence[BaseMessage]) -> bool:
    """Tell what the caller said from the application's own words and from results of tools."""
    if _role(message) == "assistant":
        return _role(turn[0]) != "assistant"
    return _role(message) == "user"


def _quarantined(turn: Sequence[BaseMessage], decision: Decision) -> list[BaseMessage]:
    """Empty what was judged; ids stay, and so does an answer to each tool call."""
    emptied: list[BaseMessage] = []
    for message in turn:
        fields = {"id": message.id, "response_metadata": {RECORD: decision.summary()}}
        match _role(message):
            case "system":
                emptied.append(message)
            case "user":
                emptied.append(HumanMessage(WITHHELD, **fields))
            case "tool" if isinstance(message, ToolMessage):
                call, name = message.tool_call_id, message.name
                fields |= {"tool_call_id": call, "name": name, "status": "error"}
                emptied.append(ToolMessage(WITHHELD, **fields))
    return emptied


def _updates(old: Sequence[BaseMessage], new: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Return what LangGraph's `add_messages` needs to turn one list into the other."""
    left = {message.id for message in new}
    gone = [RemoveMessage(str(message.id)) for message in old if message.id not in left]
    changed = [message for message in new if not any(message is other for other in old)]
    return [*gone, *changed]


def _role(message: BaseMessage) -> str:
    return Conversation.of(message).turns[0].role
