"""Kanana Safeguard, for Korean: one token, `<SAFE>` or `<UNSAFE-S4>`.

Prompt: the chat template of the checkpoint, which is nowhere else to be had: there is none of ours.
Codes and use: the model cards (huggingface.co/kakaocorp/kanana-safeguard-8b, Apache 2.0).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from langchain_safeguard.conversation import Conversation
from langchain_safeguard.engines import Completion, Prompt, Reading
from langchain_safeguard.errors import ConfigurationError, GuardOutputError
from langchain_safeguard.guards.card import GuardCard
from langchain_safeguard.guards.chat_template import ChatTemplate
from langchain_safeguard.guards.dialogue import ANSWERS, exchange
from langchain_safeguard.guards.evidence import Codes, harmless, judged, without_control
from langchain_safeguard.guards.family import LanguageFamily
from langchain_safeguard.taxonomy import SIDES, Category, Side
from langchain_safeguard.verdict import Verdict

Kind = Literal["harm", "siren", "prompt"]


@dataclass(frozen=True)
class _Edition:
    """What differs from one model to the next.

    Attributes:
        table: The categories of each code.
        answers: Whether it judges answers, too.
    """

    table: Codes
    answers: bool = False


_EDITIONS: dict[str, _Edition] = {
    "harm": _Edition(
        {
            "S1": (Category.HATE,),
            "S2": (Category.HARASSMENT,),
            "S3": (Category.SEXUAL_CONTENT,),
            "S4": (
                Category.VIOLENT_CRIMES,
                Category.NON_VIOLENT_CRIMES,
                Category.SEX_CRIMES,
                Category.WEAPONS,
            ),
            "S5": (Category.CHILD_SEXUAL_EXPLOITATION,),
            "S6": (Category.SELF_HARM,),
            "S7": (Category.OTHER,),
        },
        answers=True,
    ),
    "siren": _Edition(
        {
            "I1": (Category.SEXUAL_CONTENT, Category.CONTROLLED_SUBSTANCES),
            "I2": (Category.SPECIALIZED_ADVICE,),
            "I3": (Category.PRIVACY,),
            "I4": (Category.INTELLECTUAL_PROPERTY,),
        }
    ),
    "prompt": _Edition(
        {
            "A1": (Category.PROMPT_INJECTION, Category.JAILBREAK),
            "A2": (Category.PROMPT_INJECTION,),
        }
    ),
}
_VERDICT = re.compile(r"<(SAFE|UNSAFE)(?:-(\w+))?>")
_MARKERS = ("<SAFE>", "<UNSAFE-", "<UNSAFE>")


class Kanana(LanguageFamily):
    """Judges the last exchange; the score is the probability that the token is not `<SAFE>`.

    Args:
        kind: `"harm"` (harmful content), `"siren"` (legal and policy risks) or `"prompt"` (attacks
            on prompts); the last two judge only what comes in.
        template: The checkpoint's own chat template; without it nothing can be asked.

    Raises:
        ConfigurationError: The kind is unknown.
    """

    def __init__(self, kind: Kind = "harm", *, template: str | None = None) -> None:
        """Look the kind up."""
        if kind not in _EDITIONS:
            raise ConfigurationError.unknown("kind", kind, _EDITIONS)
        self._edition = _EDITIONS[kind]
        self.name = f"kanana-{kind}"
        self.sides = frozenset(SIDES) if self._edition.answers else frozenset(SIDES) - ANSWERS
        self.categories = frozenset({Category.OTHER}.union(*self._edition.table.values()))
        self._template = None if template is None else ChatTemplate(template, markers=_MARKERS)

    def render(self, conversation: Conversation, side: Side) -> Sequence[Prompt]:
        """Render the last question, and the answer where one is judged.

        Raises:
            ConfigurationError: There is no chat template.
        """
        if self._template is None:
            raise ConfigurationError("Kanana Safeguard needs the chat template of its checkpoint")
        question, answer = exchange(conversation, side)
        messages = [{"role": "user", "content": question}]
        if self._edition.answers:
            # The card has an answer for every question, an empty one where there is none.
            messages.append({"role": "assistant", "content": answer or ""})
        spellings = {"SAFE": ("<SAFE>",)} | {
            code: (f"<UNSAFE-{code}>",) for code in self._edition.table
        }
        # The verdict takes the place of a next turn: the card adds no prompt for one.
        pieces = self._template.render(messages, add_generation_prompt=False)
        return [Prompt(pieces, (Reading("verdict", spellings),))]

    def read(self, answers: Sequence[Completion], side: Side) -> Verdict:
        """Read the probability of each token."""
        [answer] = answers
        table = self._edition.table
        if "verdict" in answer.readings:
            risks = {
                code: risk for code, risk in answer.readings["verdict"].items() if code != "SAFE"
            }
            score = min(sum(risks.values()), 1.0)
            likely = {code: risk / score if score else 0.0 for code, risk in risks.items()}
            return judged(self.name, score, table=table, likely=likely, tokens=answer.tokens)
        text = without_control(answer.text or "").strip()
        found = _VERDICT.findall(text)
        if not found or _VERDICT.sub("", text).strip():
            raise GuardOutputError("the answer is neither '<SAFE>' nor '<UNSAFE-...>'")
        if found == [("SAFE", "")]:
            return harmless(self.name, answer.tokens)
        if any(word == "SAFE" for word, _ in found):
            raise GuardOutputError("the answer says '<SAFE>' and goes on")
        listed = [code for _, code in found if code]
        return judged(self.name, None, table=table, listed=listed, tokens=answer.tokens)


CARDS = (
    GuardCard(
        name="kakaocorp/kanana-safeguard-8b",
        family=Kanana,
        options={"kind": "harm"},
        languages=("Korean",),
        licence="Apache 2.0",
        size="8B",
    ),
    GuardCard(
        name="kakaocorp/kanana-safeguard-siren-8b",
        family=Kanana,
        options={"kind": "siren"},
        languages=("Korean",),
        licence="Apache 2.0",
        size="8B",
        sides=("input", "tool_output"),
        note="legal and policy risks",
    ),
    GuardCard(
        name="kakaocorp/kanana-safeguard-prompt-2.1b",
        family=Kanana,
        options={"kind": "prompt"},
        languages=("Korean",),
        licence="Apache 2.0",
        size="2.1B",
        sides=("input", "tool_output"),
        # Its config has 24 heads at a hidden size of 1792, with a head size of its own.
        note="attacks on prompts; some versions of transformers refuse its config",
    ),
)
