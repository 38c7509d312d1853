"""KoSafeGuard: one word, `safe` or `unsafe`, on what an assistant answered in Korean.

Prompt: the one of the model card of heegyu/KoSafeGuard-8b-0503 (`templates/ko_safeguard.jinja`;
Meta Llama 3 Community Licence), all of it one user message in the checkpoint's chat template. Where
the checkpoint has none, it is put between the turn tokens of Llama 3 Instruct.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from langchain_safeguard.conversation import Conversation
from langchain_safeguard.engines import Completion, Prompt, Reading
from langchain_safeguard.errors import GuardOutputError
from langchain_safeguard.guards.card import GuardCard
from langchain_safeguard.guards.chat_template import ChatTemplate, shipped, verbatim
from langchain_safeguard.guards.dialogue import ANSWERS, exchange
from langchain_safeguard.guards.evidence import harmless, judged, safe_or_unsafe
from langchain_safeguard.guards.family import LanguageFamily
from langchain_safeguard.guards.llama_guard import MARKERS, SPEAKERS, sections_of
from langchain_safeguard.taxonomy import Category, Side
from langchain_safeguard.verdict import Verdict

_VERDICT = Reading("verdict", {"safe": ("safe", " safe"), "unsafe": ("unsafe", " unsafe")})


class KoSafeGuard(LanguageFamily):
    """Judges the last answer with the question that led to it.

    The model was trained on answers only; it names no hazards, so all it finds is `other`.

    Args:
        template: The checkpoint's own chat template; that of Llama 3 Instruct if left out.
        categories: Hazards to judge instead of the model's own: from code, such as `"O1"`, to text.

    Raises:
        ConfigurationError: A category is no code with a text.
    """

    name = "ko-safeguard"
    sides = ANSWERS
    categories = frozenset({Category.OTHER})

    def __init__(
        self, *, template: str | None = None, categories: Mapping[str, str] | None = None
    ) -> None:
        """Prepare the templates."""
        self._chat = ChatTemplate(
            template or shipped("llama_3_instruct"), tokens={"bos_token": "<|begin_of_text|>"}
        )
        self._prompt = ChatTemplate(shipped("ko_safeguard"), markers=MARKERS, speakers=SPEAKERS)
        self._policy = None if categories is None else "".join(sections_of(categories).values())

    def render(self, conversation: Conversation, side: Side) -> Sequence[Prompt]:
        """Render the last exchange as one user message."""
        question, answer = exchange(conversation, side)
        content = self._prompt.render(
            [verbatim("user", question), verbatim("assistant", answer or "")],
            categories=self._policy,
        )
        return [Prompt(self._chat.render([{"role": "user", "content": content}]), (_VERDICT,))]

    def read(self, answers: Sequence[Completion], side: Side) -> Verdict:
        """Read the probability of `unsafe`."""
        [answer] = answers
        if "verdict" in answer.readings:
            score = answer.readings["verdict"]["unsafe"]
            return judged(self.name, score, table={}, tokens=answer.tokens)
        if answer.text is None:
            raise GuardOutputError("the answer is empty")
        unsafe, codes = safe_or_unsafe(answer.text)
        if not unsafe:
            return harmless(self.name, answer.tokens)
        return judged(self.name, None, table={}, listed=codes, tokens=answer.tokens)


CARDS = (
    GuardCard(
        name="heegyu/KoSafeGuard-8b-0503",
        family=KoSafeGuard,
        languages=("Korean",),
        sides=tuple(sorted(ANSWERS)),
        licence="Llama 3 Community",
        size="8B",
        quantization="4bit",
        note="Korean answers; one word, no hazards named; loaded in 4 bits, as its card does",
    ),
)
