"""A guard that remembers: the same texts come back under every defense and threshold."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_safeguard.conversation import Conversation
from langchain_safeguard.guards.base import Guard
from langchain_safeguard.taxonomy import Side
from langchain_safeguard.verdict import Verdict


class Remembering(Guard):
    """Asks a guard about each conversation once. Verdicts that failed are not kept.

    Args:
        guard: Whom to ask.
    """

    def __init__(self, guard: Guard) -> None:
        """Begin with nothing."""
        self.guard = guard
        self.name = guard.name
        self.revision = guard.revision
        self.categories = guard.categories
        self.sides = guard.sides
        self._known: dict[tuple[Side, Conversation], Verdict] = {}

    def check(self, conversations: Sequence[Conversation], side: Side) -> list[Verdict]:
        """Judge what is not known yet, in one call."""
        new = [each for each in dict.fromkeys(conversations) if (side, each) not in self._known]
        found = dict(zip(new, self.guard.check(new, side), strict=True)) if new else {}
        verdicts = [found.get(each) or self._known[side, each] for each in conversations]
        self._known.update(
            {(side, each): verdict for each, verdict in found.items() if not verdict.failed}
        )
        return verdicts
