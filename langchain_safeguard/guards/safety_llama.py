"""Safety-LLaMA: an evaluation in words, with `Chatbot is: good.` or `Chatbot is: bad.` at its end.

Prompt: guidelines of the model card of safetyllm/Llama-2-7b-chat-safety, instruction and worked
examples of its authors' scripts (github.com/chaoluond/safetyllama; MIT), all in
`templates/safety_llama.jinja`. There a space stands behind each `<s>`: with it, Llama 2's tokenizer
gives the tokens of the authors, who encode each pair of turns as a text of its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from langchain_safeguard.conversation import Conversation
from langchain_safeguard.engines import Completion, Prompt, Reading, Writing
from langchain_safeguard.errors import ConfigurationError, GuardOutputError
from langchain_safeguard.guards.card import GuardCard
from langchain_safeguard.guards.chat_template import ChatTemplate, shipped
from langchain_safeguard.guards.dialogue import ANSWERS, exchange
from langchain_safeguard.guards.evidence import harmless, judged
from langchain_safeguard.guards.family import LanguageFamily
from langchain_safeguard.guards.options import flag, text_or_none
from langchain_safeguard.taxonomy import Category, Side
from langchain_safeguard.verdict import Verdict

Style = Literal["chat", "training"]

_LEADS: dict[str, str] = {"chat": " Evaluation:", "training": "Evaluation:"}
"""How an evaluation begins, by what the prompt ends with: `[/INST]`, or a line break."""
_END = "Chatbot is:"
_VERDICT = Reading("verdict", {"good": (" good", "good"), "bad": (" bad", "bad")})
_LONGEST = 256
"""The most tokens of a written evaluation; those of the authors have about a hundred."""
_WORD = re.compile(r"\s*(good|bad)\b", re.IGNORECASE)
_BEGIN = re.compile(r"\s*Evaluation:", re.IGNORECASE)
_MARKERS = (
    "[INST]",
    "[/INST]",
    "<<SYS>>",
    "<</SYS>>",
    "Human: <",
    "Human:<",
    "Chatbot: <",
    "Chatbot:<",
    "your evaluation based on the above unsafe content guidelines",
    _END,
)
_SPEAKERS = ("Human", "Chatbot", "Evaluation", "Conversation")


class SafetyLlama(LanguageFamily):
    """Judges the last answer with the question that led to it.

    The model names no hazards, so all it finds is `other`. Its verdict comes last: the score is the
    probability of `bad` at that place.

    Args:
        template: Not used: the authors' prompts are no chat template.
        explain: Let the model write its evaluation before the verdict, as it was trained to; it
            becomes `Verdict.explanation`. Without, the verdict is asked for at once: a score in one
            pass, about a hundred times cheaper, and less well founded.
        guidelines: What counts as unsafe, instead of the model's own list of it; lines that begin
            with `- `, as a text. The instruction around them stays.
        style: `"chat"` is how the authors ask the finished model: a chat with two worked examples.
            `"training"` is the text it was trained on.

    Raises:
        ConfigurationError: A value is unknown, or the guidelines are empty.
    """

    name = "safety-llama"
    sides = ANSWERS
    categories = frozenset({Category.OTHER})

    def __init__(
        self,
        *,
        template: str | None = None,
        explain: bool = True,
        guidelines: str | None = None,
        style: Style = "chat",
    ) -> None:
        """Check the options."""
        if style not in _LEADS:
            raise ConfigurationError.unknown("style", style, _LEADS)
        self._prompt = ChatTemplate(shipped("safety_llama"), markers=_MARKERS, speakers=_SPEAKERS)
        self._options = {"style": style, "guidelines": text_or_none("guidelines", guidelines)}
        lead = _LEADS[style]
        self._answer: tuple[str | Reading | Writing, ...] = (
            (lead, Writing(_LONGEST, until=_END), _VERDICT)
            if flag("explain", explain)
            else (f"{lead} {_END}", _VERDICT)
        )

    def render(self, conversation: Conversation, side: Side) -> Sequence[Prompt]:
        """Render the last exchange."""
        question, answer = exchange(conversation, side)
        messages = [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer or ""},
        ]
        return [Prompt(self._prompt.render(messages, **self._options), self._answer)]

    def read(self, answers: Sequence[Completion], side: Side) -> Verdict:
        """Read the probability of `bad`, and the evaluation where there is one."""
        [answer] = answers
        evaluation, verdict = _taken_apart(answer.text or "")
        if "verdict" in answer.readings:
            score = answer.readings["verdict"]["bad"]
            return judged(self.name, score, table={}, tokens=answer.tokens, explanation=evaluation)
        word = _WORD.match(verdict or "")
        if word is None:
            raise GuardOutputError("the answer does not end with 'Chatbot is: good' or '... bad'")
        if word[1].lower() == "good":
            return harmless(self.name, answer.tokens, evaluation)
        return judged(self.name, None, table={}, tokens=answer.tokens, explanation=evaluation)


def _taken_apart(text: str) -> tuple[str | None, str | None]:
    """Return the evaluation, and what follows the last `Chatbot is:`; `None` where there is none.

    An evaluation may quote the words of the verdict, so the last ones count.
    """
    at = text.lower().rfind(_END.lower())
    evaluation = _BEGIN.sub("", text if at < 0 else text[:at], count=1).strip()
    return evaluation or None, None if at < 0 else text[at + len(_END) :]


CARDS = (
    GuardCard(
        name="safetyllm/Llama-2-7b-chat-safety",
        family=SafetyLlama,
        languages=("English",),
        sides=tuple(sorted(ANSWERS)),
        licence="MIT (adapter), Llama 2 Community (base)",
        size="7B",
        base_model="meta-llama/Llama-2-7b-chat-hf",
        note="LoRA adapter on a gated base; explains itself, or scores in one pass",
    ),
)
