"""Rows made from other rows: what is harmless as an answer is harmless prose when pasted.

Public prompts are short when harmless and long when harmful. Answers, read as texts of their own,
even that out, and rude replies are rude without what they reply to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from langchain_safeguard.training.rows import Row

_HARMLESS = frozenset({"gpteacher_responses", "caia_safety_responses", "ko_chatbot_responses"})
_RUDE = frozenset({"hate", "harassment"})


def as_inputs(rows: Sequence[Row]) -> Iterator[Row]:
    """Answers that keep their label when nobody knows the prompt, as rows of side `input`."""
    for row in rows:
        rude = row.file == "diasafety" and row.unsafe and bool(_RUDE & set(row.categories or ()))
        if row.side == "output" and ((row.file in _HARMLESS and not row.unsafe) or rude):
            yield replace(row, file=f"{row.file}_as_input", side="input", prompt=None)
