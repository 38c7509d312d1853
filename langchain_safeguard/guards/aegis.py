"""NVIDIA Aegis 1.0, Defensive and Permissive: Llama Guard's grammar with thirteen hazards.

Prompt: `templates/aegis_1.jinja`, the text with which NVIDIA's own NeMo Curator runs the models
(nemo_curator/utils/aegis_utils.py, copyright NVIDIA, Apache 2.0), white space and all. There it
judges users only; for answers, `Agent` takes the place of `User`, as in Llama Guard, which the
models adapt.
"""

from __future__ import annotations

from collections.abc import Sequence

from langchain_safeguard.conversation import Conversation
from langchain_safeguard.engines import Completion, Prompt, Reading, Writing
from langchain_safeguard.guards.card import GuardCard
from langchain_safeguard.guards.chat_template import ChatTemplate, shipped
from langchain_safeguard.guards.dialogue import alternating
from langchain_safeguard.guards.evidence import Codes, harmless, judged, safe_or_unsafe
from langchain_safeguard.guards.family import LanguageFamily
from langchain_safeguard.guards.llama_guard import MARKERS, SPEAKERS
from langchain_safeguard.taxonomy import Category, Side
from langchain_safeguard.verdict import Verdict

CODES: Codes = {
    "O1": (Category.VIOLENT_CRIMES,),
    "O2": (Category.SEXUAL_CONTENT,),
    "O3": (Category.NON_VIOLENT_CRIMES,),
    "O4": (Category.WEAPONS, Category.INDISCRIMINATE_WEAPONS),
    "O5": (Category.CONTROLLED_SUBSTANCES,),
    "O6": (Category.SELF_HARM,),
    "O7": (Category.CHILD_SEXUAL_EXPLOITATION,),
    "O8": (Category.HATE,),
    "O9": (Category.PRIVACY,),
    "O10": (Category.HARASSMENT,),
    "O11": (Category.HARASSMENT,),
    "O12": (Category.PROFANITY,),
    "O13": (Category.OTHER,),
}
"""Threats (O11) are harassment here; what needs caution (O13) has no other name."""


class Aegis(LanguageFamily):
    """Judges prompts and answers in conversations of several turns.

    The two models differ in how they were trained: what needs caution is unsafe for the one and
    safe for the other.

    Args:
        template: Not used: an adapter's folder has the template of Llama Guard, with other hazards.
    """

    name = "aegis-1"
    categories = frozenset({Category.OTHER}.union(*CODES.values()))

    def __init__(self, *, template: str | None = None) -> None:
        """Prepare the prompt."""
        self._template = ChatTemplate(shipped("aegis_1"), markers=MARKERS, speakers=SPEAKERS)

    def render(self, conversation: Conversation, side: Side) -> Sequence[Prompt]:
        """Render the conversation."""
        return [
            Prompt(
                self._template.render(alternating(conversation, side)),
                (
                    Reading(
                        "verdict", {"safe": ("safe", " safe"), "unsafe": ("unsafe", " unsafe")}
                    ),
                    " unsafe\n",
                    Reading("hazard", {code: (code,) for code in CODES}),
                    Writing(4 * len(CODES), only_if=("verdict", "unsafe")),
                ),
            )
        ]

    def read(self, answers: Sequence[Completion], side: Side) -> Verdict:
        """Read the probability of `unsafe`, and the hazards."""
        [answer] = answers
        verdict = answer.readings.get("verdict")
        unsafe, listed = False, list[str]()
        if answer.text is not None or verdict is None:
            unsafe, listed = safe_or_unsafe(answer.text or "")
        if verdict is None and not unsafe:
            return harmless(self.name, answer.tokens)
        return judged(
            self.name,
            None if verdict is None else verdict["unsafe"],
            table=CODES,
            listed=listed,
            likely=answer.readings.get("hazard"),
            tokens=answer.tokens,
        )


CARDS = tuple(
    GuardCard(
        name=f"nvidia/Aegis-AI-Content-Safety-LlamaGuard-{kind}-1.0",
        family=Aegis,
        languages=("English",),
        licence="Llama 2 Community",
        size="7B",
        note=f"an adapter; what needs caution counts as {caution}",
    )
    for kind, caution in (("Defensive", "unsafe"), ("Permissive", "safe"))
)
