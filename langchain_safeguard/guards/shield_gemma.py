"""ShieldGemma: `Yes` or `No` to one guideline at a time.

Prompt: the template of Google's checkpoints (`templates/shield_gemma.jinja`) and the guidelines of
their model card; Gemma Terms of Use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from langchain_safeguard.conversation import Conversation
from langchain_safeguard.engines import Completion, Prompt, Reading
from langchain_safeguard.guards.card import GuardCard
from langchain_safeguard.guards.chat_template import ChatTemplate, shipped, verbatim
from langchain_safeguard.guards.dialogue import exchange
from langchain_safeguard.guards.evidence import Codes, harmless, judged, judged_each, yes_or_no
from langchain_safeguard.guards.family import LanguageFamily
from langchain_safeguard.guards.options import named_texts
from langchain_safeguard.taxonomy import Category, Side
from langchain_safeguard.verdict import Verdict

_TABLE: Codes = {
    "No Dangerous Content": (
        Category.VIOLENT_CRIMES,
        Category.WEAPONS,
        Category.INDISCRIMINATE_WEAPONS,
        Category.SELF_HARM,
    ),
    "No Harassment": (Category.HARASSMENT,),
    "No Hate Speech": (Category.HATE,),
    "No Sexually Explicit Information": (Category.SEXUAL_CONTENT,),
}
_CONTENT = {
    "No Dangerous Content": "content that harming oneself and/or others (e.g., accessing or "
    "building firearms and explosive devices, promotion of terrorism, instructions for suicide).",
    "No Harassment": "content that is malicious, intimidating, bullying, or abusive content "
    "targeting another individual (e.g., physical threats, denial of tragic events, disparaging "
    "victims of violence).",
    "No Hate Speech": "content that targeting identity and/or protected attributes (e.g., racial "
    "slurs, promotion of discrimination, calls to violence against protected groups) or "
    "dehumanizing/belittling/vilifying on the bases of race, ethnicity, religion, disability, age, "
    "nationality, veteran status, sexual orientation, gender, gender identity, caste, or any other "
    "protected status. We do allow content that includes a reference to a protected individual or "
    "group in a positive manner.",
    "No Sexually Explicit Information": "content that contains references to sexual acts or other "
    "lewd content (e.g., sexually graphic descriptions, content aimed at causing arousal). Medical "
    "or scientific terms related to human anatomy or sex education are permitted.",
}
"""What each guideline forbids; how it begins differs between questions and answers."""
_OF_QUESTIONS = "The prompt shall not contain or seek generation of "
_OF_ANSWERS = "The chatbot shall not generate "
_MARKERS = ("<start_of_turn>", "<end_of_turn>")
_SPEAKERS = ("Human Question", "Chatbot Response")
_VERDICT = Reading("verdict", {"yes": ("Yes",), "no": ("No",)})


class ShieldGemma(LanguageFamily):
    """Judges the last question, or the last answer with its question, by each guideline apart.

    The score is that of the model card: the probability of `Yes` against `No`, the riskiest
    guideline's.

    Args:
        template: The checkpoint's own chat template; Google's if it is left out or no guard's.
        guidelines: Guidelines instead of the model's own: from name to text. One that has the name
            of the model's own keeps its category; others become `other` and keep their name.

    Raises:
        ConfigurationError: There is no guideline, or one has no text.
    """

    name = "shield-gemma"

    def __init__(
        self, *, template: str | None = None, guidelines: Mapping[str, str] | None = None
    ) -> None:
        """Check the guidelines."""
        if template is None or "guideline" not in template:
            template = shipped("shield_gemma")
        self._template = ChatTemplate(
            template, markers=_MARKERS, speakers=_SPEAKERS, tokens={"bos_token": "<bos>"}
        )
        if guidelines is not None:
            guidelines = named_texts("guidelines", guidelines)
        self._guidelines = guidelines
        names = _CONTENT if guidelines is None else guidelines
        self._table = {name: _TABLE.get(name, (Category.OTHER,)) for name in names}
        self.categories = frozenset(
            category for categories in self._table.values() for category in categories
        )

    def render(self, conversation: Conversation, side: Side) -> Sequence[Prompt]:
        """Render a prompt per guideline."""
        question, answer = exchange(conversation, side)
        messages = [verbatim("user", question)]
        if answer is not None:
            messages.append(verbatim("assistant", answer))
        begin = _OF_QUESTIONS if answer is None else _OF_ANSWERS
        guidelines = self._guidelines
        if guidelines is None:
            guidelines = {name: begin + text for name, text in _CONTENT.items()}
        return [
            Prompt(self._template.render(messages, guideline=f'"{name}": {text}'), (_VERDICT,))
            for name, text in guidelines.items()
        ]

    def read(self, answers: Sequence[Completion], side: Side) -> Verdict:
        """Read the probability of `Yes` for each guideline."""
        tokens = sum(answer.tokens or 0 for answer in answers) or None
        by_name = dict(zip(self._table, answers, strict=True))
        if all("verdict" in answer.readings for answer in answers):
            risks = {name: answer.readings["verdict"]["yes"] for name, answer in by_name.items()}
            return judged_each(self.name, risks, table=self._table, tokens=tokens)
        violated = [name for name, answer in by_name.items() if yes_or_no(answer.text or "")]
        if not violated:
            return harmless(self.name, tokens)
        return judged(self.name, None, table=self._table, listed=violated, tokens=tokens)


CARDS = tuple(
    GuardCard(
        name=f"google/shieldgemma-{size.lower()}",
        family=ShieldGemma,
        languages=("English",),
        licence="Gemma Terms of Use",
        gated=True,
        size=size,
        note="a prompt for each of four guidelines; find a threshold for your own data",
        signs=("You are a policy expert", "Human Question: ", "guideline"),
    )
    for size in ("2B", "9B", "27B")
)
