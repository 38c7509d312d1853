"""Qwen3Guard-Gen: `Safety: Unsafe`, then the categories in a second line.

Prompt: our own template, whose text is what the chat template of Qwen3Guard-Gen writes
(github.com/QwenLM/Qwen3Guard; Apache 2.0).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from langchain_safeguard.conversation import Conversation
from langchain_safeguard.engines import Completion, Prompt, Reading, Writing
from langchain_safeguard.errors import ConfigurationError, GuardOutputError
from langchain_safeguard.guards.card import GuardCard
from langchain_safeguard.guards.chat_template import ChatTemplate, shipped
from langchain_safeguard.guards.dialogue import ANSWERS, alternating
from langchain_safeguard.guards.evidence import Codes, harmless, judged
from langchain_safeguard.guards.family import LanguageFamily
from langchain_safeguard.guards.labelled import choice, labelled_lines, named
from langchain_safeguard.taxonomy import Category, Side
from langchain_safeguard.verdict import Verdict

Mode = Literal["strict", "loose"]

CATEGORIES: Codes = {
    "Violent": (Category.VIOLENT_CRIMES, Category.WEAPONS),
    "Non-violent Illegal Acts": (Category.NON_VIOLENT_CRIMES,),
    "Sexual Content or Sexual Acts": (Category.SEXUAL_CONTENT, Category.SEX_CRIMES),
    "PII": (Category.PRIVACY,),
    "Suicide & Self-Harm": (Category.SELF_HARM,),
    "Unethical Acts": (Category.HATE, Category.HARASSMENT),
    "Politically Sensitive Topics": (Category.OTHER,),
    "Copyright Violation": (Category.INTELLECTUAL_PROPERTY,),
    "Jailbreak": (Category.JAILBREAK,),
}
"""What the model can name; `Jailbreak` only where a user's words are judged."""

_LEVELS = ("Safe", "Unsafe", "Controversial")
_LINES = ("Safety", "Categories", "Refusal")
_MARKERS = tuple(
    f"<{edge} {block}>"
    for edge in ("BEGIN", "END")
    for block in ("SAFETY POLICY", "UNSAFE CONTENT CATEGORIES", "REFUSAL POLICY", "CONVERSATION")
)


class Qwen3Guard(LanguageFamily):
    """Judges prompts and answers in conversations of several turns.

    The score is the probability of `Unsafe`, in strict mode that of `Controversial` added to it.

    Args:
        mode: Whether what is controversial counts as unsafe (`"strict"`) or as safe (`"loose"`).
        template: The checkpoint's own chat template; ours if left out.

    Raises:
        ConfigurationError: The mode is unknown.
    """

    name = "qwen3guard"
    categories = frozenset({Category.OTHER}.union(*CATEGORIES.values()))

    def __init__(self, mode: Mode = "strict", *, template: str | None = None) -> None:
        """Look the mode up."""
        if mode not in ("strict", "loose"):
            raise ConfigurationError.unknown("mode", mode, ("strict", "loose"))
        self._unsafe = ("Unsafe", "Controversial") if mode == "strict" else ("Unsafe",)
        self._template = ChatTemplate(
            template or shipped("qwen3_guard"), markers=_MARKERS, speakers=("USER", "ASSISTANT")
        )

    def render(self, conversation: Conversation, side: Side) -> Sequence[Prompt]:
        """Render the conversation."""
        names = [name for name in CATEGORIES if name != "Jailbreak" or side not in ANSWERS]
        return [
            Prompt(
                self._template.render(alternating(conversation, side)),
                (
                    "Safety:",
                    Reading("safety", {level: (f" {level}",) for level in _LEVELS}),
                    " Unsafe\nCategories:",
                    Reading("category", {name: (f" {name}",) for name in names}),
                    # All names together; a line on refusal may follow.
                    Writing(64, only_if=("safety", "Unsafe")),
                ),
            )
        ]

    def read(self, answers: Sequence[Completion], side: Side) -> Verdict:
        """Read the probabilities of the levels, and the categories."""
        [answer] = answers
        levels = answer.readings.get("safety")
        if levels is None:
            return self._written(answer)
        listed: list[str] = []
        if answer.text is not None:
            # Its first line was forced; a last one on refusal says nothing of risk.
            lines = answer.text.split("\n")
            listed = named(lines[1].removeprefix("Categories:")) if len(lines) > 1 else []
        return judged(
            self.name,
            sum(levels[level] for level in self._unsafe),
            table=CATEGORIES,
            listed=listed,
            likely=answer.readings.get("category"),
            tokens=answer.tokens,
        )

    def _written(self, answer: Completion) -> Verdict:
        lines = labelled_lines(answer.text or "", _LINES)
        level = choice(lines, "Safety", _LEVELS)
        listed = named(lines.get("Categories", ""))
        if level == "Safe" and listed:
            raise GuardOutputError("the answer says 'Safe' and names categories")
        if level not in self._unsafe:
            return harmless(self.name, answer.tokens)
        return judged(self.name, None, table=CATEGORIES, listed=listed, tokens=answer.tokens)


CARDS = tuple(
    GuardCard(
        name=f"Qwen/Qwen3Guard-Gen-{size}",
        family=Qwen3Guard,
        languages=("119 languages and dialects",),
        licence="Apache 2.0",
        size=size,
        note="mode='loose': what is controversial counts as safe",
        # All sizes have the same template.
        signs=("<BEGIN SAFETY POLICY>", "**Safety: Controversial**") if size == "0.6B" else (),
    )
    for size in ("0.6B", "4B", "8B")
)
