"""Conversations in the few forms that guard models take."""

from __future__ import annotations

from typing import NamedTuple

from langchain_safeguard.conversation import Conversation
from langchain_safeguard.taxonomy import Side

_SPEAKER: dict[Side, str] = {
    "input": "user",
    "output": "assistant",
    "tool_input": "assistant",
    "tool_output": "user",
}
"""Tools are unknown to most guard models: what goes into one is the assistant's word, and what
comes out of it is told to the assistant, as a user's word is."""
ANSWERS: frozenset[Side] = frozenset(
    side for side, speaker in _SPEAKER.items() if speaker == "assistant"
)
"""The sides on which the assistant's word is judged, with the question that led to it."""


class Exchange(NamedTuple):
    """What was asked and what was answered; `None` where only the question is judged."""

    question: str
    answer: str | None


def alternating(conversation: Conversation, side: Side) -> list[dict[str, str]]:
    """Return the turns as messages of user and assistant in turn, the judged one last.

    System turns are the application's own words and left out; neighbours with the same role become
    one, a blank line between them; what the assistant said first of all is left out, unless it is
    what is judged: then an empty user turn goes before it.
    """
    messages: list[dict[str, str]] = []
    context = (turn for turn in conversation.context(side) if turn.role != "system")
    for turn in (*context, conversation.checked(side)):
        role = "assistant" if turn.role == "assistant" else "user"
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += f"\n\n{turn.text}"
        else:
            messages.append({"role": role, "content": turn.text})
    if messages[0]["role"] == "assistant":
        if len(messages) > 1:
            return messages[1:]
        messages.insert(0, {"role": "user", "content": ""})
    return messages


def exchange(conversation: Conversation, side: Side) -> Exchange:
    """Return the last question and, where an answer is judged, the answer.

    An agent's answer comes after tools were called: the question is what the user asked, and what
    the tools said since then.
    """
    messages = alternating(conversation, side)
    if side not in ANSWERS:
        return Exchange(messages[-1]["content"], None)
    asked: list[str] = []
    from_user = False
    for turn in reversed(conversation.context(side)):
        if from_user and turn.role in ("assistant", "tool"):
            break
        if turn.role in ("user", "tool"):
            asked.insert(0, turn.text)
        from_user = from_user or turn.role == "user"
    return Exchange("\n\n".join(asked), messages[-1]["content"])
