"""Llama Guard 1 to 4: `safe`, or `unsafe` and the codes of the hazards in a second line.

Prompts: the templates that Meta ships with the checkpoints (`templates/llama_guard_*.jinja`; Llama
2, 3, 3.1, 3.2 and 4 Community Licences).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from langchain_safeguard.conversation import Conversation
from langchain_safeguard.engines import Completion, Piece, Prompt, Reading, Writing
from langchain_safeguard.errors import ConfigurationError
from langchain_safeguard.guards.card import GuardCard
from langchain_safeguard.guards.chat_template import ChatTemplate, shipped
from langchain_safeguard.guards.dialogue import alternating
from langchain_safeguard.guards.evidence import Codes, harmless, judged, judged_each, safe_or_unsafe
from langchain_safeguard.guards.family import LanguageFamily
from langchain_safeguard.guards.options import flag, named_texts
from langchain_safeguard.taxonomy import Category, Side
from langchain_safeguard.verdict import Verdict

Version = Literal["1", "2", "3-8b", "3-1b", "4"]

FIRST_CODES: Codes = {
    "O1": (Category.HATE, Category.VIOLENT_CRIMES),
    "O2": (Category.SEXUAL_CONTENT,),
    "O3": (Category.NON_VIOLENT_CRIMES,),
    "O4": (Category.WEAPONS, Category.INDISCRIMINATE_WEAPONS),
    "O5": (Category.CONTROLLED_SUBSTANCES,),
    "O6": (Category.SELF_HARM,),
}
_SECOND_CODES: Codes = {
    "S1": (Category.VIOLENT_CRIMES,),
    "S2": (Category.NON_VIOLENT_CRIMES,),
    "S3": (Category.SEX_CRIMES,),
    "S4": (Category.CHILD_SEXUAL_EXPLOITATION,),
    "S5": (Category.SPECIALIZED_ADVICE,),
    "S6": (Category.PRIVACY,),
    "S7": (Category.INTELLECTUAL_PROPERTY,),
    "S8": (Category.INDISCRIMINATE_WEAPONS,),
    "S9": (Category.HATE,),
    "S10": (Category.SELF_HARM,),
    "S11": (Category.SEXUAL_CONTENT,),
}
MLCOMMONS_CODES: Codes = {
    f"S{number}": (category,) for number, category in enumerate([*Category][:14], start=1)
}
"""The codes of Llama Guard 3 and 4, which PolyGuard shares."""


@dataclass(frozen=True)
class _Edition:
    """What differs from one version to the next.

    Attributes:
        template: The shipped template.
        table: The categories of each code.
        lead: What the model says before its verdict.
        space: What stands between the prompt and the first word.
    """

    template: str
    table: Codes
    lead: str = ""
    space: str = ""


_EDITIONS: dict[str, _Edition] = {
    "1": _Edition("llama_guard_1", FIRST_CODES, space=" "),
    "2": _Edition("llama_guard_2", _SECOND_CODES),
    "3-8b": _Edition("llama_guard_3_8b", MLCOMMONS_CODES, lead="\n\n"),
    "3-1b": _Edition("llama_guard_3_1b", MLCOMMONS_CODES, lead="\n\n"),
    "4": _Edition("llama_guard_4", MLCOMMONS_CODES, lead="\n\n"),
}
_BLOCK = re.compile(
    r"(<BEGIN UNSAFE CONTENT CATEGORIES>\n)(.*?)(<END UNSAFE CONTENT CATEGORIES>)", re.DOTALL
)
_SECTION = re.compile(r"^(?=[A-Z]+\d+: )", re.MULTILINE)
_EIGHT = (
    "English",
    "French",
    "German",
    "Hindi",
    "Italian",
    "Portuguese",
    "Spanish",
    "Thai",
)
MARKERS = (
    "[INST]",
    "[/INST]",
    "<<SYS>>",
    "<</SYS>>",
    "<BEGIN UNSAFE CONTENT CATEGORIES>",
    "<END UNSAFE CONTENT CATEGORIES>",
    "<BEGIN CONVERSATION>",
    "<END CONVERSATION>",
)
SPEAKERS = ("User", "Agent", "Assistant")


class LlamaGuard(LanguageFamily):
    """Judges prompts and answers in conversations of several turns.

    The score is the probability of the first word of the verdict, as the model cards have it.

    Args:
        version: Which Llama Guard it is; their codes differ.
        template: The checkpoint's own chat template; the one that Meta ships
            if it is left out or no guard's.
        categories: Hazards to judge instead of the model's own: from code, such as `"O1"`, to text.
            A code that has the text of the model's own hazard keeps its category; others become
            `other` and keep their code.
        per_category: Ask about one hazard at a time, with a prompt for each, as the Llama Guard
            paper does for category-wise scores.

    Raises:
        ConfigurationError: A value is unknown.
    """

    def __init__(
        self,
        version: Version = "1",
        *,
        template: str | None = None,
        categories: Mapping[str, str] | None = None,
        per_category: bool = False,
    ) -> None:
        """Look the version up."""
        if version not in _EDITIONS:
            raise ConfigurationError.unknown("version", version, _EDITIONS)
        self._edition = _EDITIONS[version]
        self.name = f"llama-guard-{version}"
        if template is None or "<BEGIN UNSAFE CONTENT CATEGORIES>" not in template:
            template = shipped(self._edition.template)
        self._template = ChatTemplate(
            template,
            markers=MARKERS,
            speakers=SPEAKERS,
            tokens={"bos_token": "<s>" if version == "1" else "<|begin_of_text|>"},
        )
        own = self._own_sections()
        self._sections = own if categories is None else sections_of(categories)
        self._custom = categories is not None
        self._per_category = flag("per_category", per_category)
        self._table: Codes = {
            code: self._edition.table[code]
            for code, section in self._sections.items()
            if code in self._edition.table and own.get(code, "").split() == section.split()
        }
        self.categories = frozenset({Category.OTHER}.union(*self._table.values()))

    def render(self, conversation: Conversation, side: Side) -> Sequence[Prompt]:
        """Render the conversation; one prompt, or one per hazard."""
        pieces = self._template.render(alternating(conversation, side))
        if self._per_category:
            return [
                Prompt(_with_block(pieces, section), self._answer(codes=()))
                for section in self._sections.values()
            ]
        if self._custom:
            pieces = _with_block(pieces, "".join(self._sections.values()))
        return [Prompt(pieces, self._answer(tuple(self._sections)))]

    def read(self, answers: Sequence[Completion], side: Side) -> Verdict:
        """Read the probability of `unsafe`, and the hazards."""
        tokens = sum(answer.tokens or 0 for answer in answers) or None
        if self._per_category:
            return self._read_each(dict(zip(self._sections, answers, strict=True)), tokens)
        [answer] = answers
        listed: list[str] = []
        unsafe: bool | None = None
        if answer.text is not None:
            unsafe, listed = safe_or_unsafe(answer.text)
        if "verdict" not in answer.readings:
            if unsafe is None:
                unsafe, listed = safe_or_unsafe("")
            if not unsafe:
                return harmless(self.name, tokens)
            return judged(self.name, None, table=self._table, listed=listed, tokens=tokens)
        return judged(
            self.name,
            answer.readings["verdict"]["unsafe"],
            table=self._table,
            listed=listed,
            likely=answer.readings.get("hazard"),
            tokens=tokens,
        )

    def _read_each(self, answers: Mapping[str, Completion], tokens: int | None) -> Verdict:
        """Read the answers to the prompts about one hazard each."""
        if all("verdict" in answer.readings for answer in answers.values()):
            risks = {code: answer.readings["verdict"]["unsafe"] for code, answer in answers.items()}
            return judged_each(self.name, risks, table=self._table, tokens=tokens)
        listed = [code for code, answer in answers.items() if safe_or_unsafe(answer.text or "")[0]]
        if not listed:
            return harmless(self.name, tokens)
        return judged(self.name, None, table=self._table, listed=listed, tokens=tokens)

    def _answer(self, codes: Sequence[str]) -> tuple[str | Reading | Writing, ...]:
        lead, space = self._edition.lead, self._edition.space
        verdict = Reading("verdict", {"safe": ("safe", " safe"), "unsafe": ("unsafe", " unsafe")})
        answer: list[str | Reading | Writing] = [lead] if lead else []
        answer.append(verdict)
        if len(codes) > 1:
            hazard = Reading("hazard", {code: (code,) for code in codes})
            # Codes are few and short; a list of all of them fits.
            writing = Writing(4 * len(codes), only_if=("verdict", "unsafe"))
            answer += [f"{space}unsafe\n", hazard, writing]
        return tuple(answer)

    def _own_sections(self) -> dict[str, str]:
        rendered = self._template.render([{"role": "user", "content": "-"}])
        block = _BLOCK.search("".join(piece.text for piece in rendered))
        if block is None:
            raise ConfigurationError("the chat template has no block of unsafe content categories")
        sections = [section for section in _SECTION.split(block[2]) if section]
        return {section.partition(":")[0]: section for section in sections}


def sections_of(categories: Mapping[str, str]) -> dict[str, str]:
    """Return the lines of a policy for hazards of one's own, by their codes.

    Raises:
        ConfigurationError: There is none, or one is no code with a text.
    """
    found = named_texts("categories", categories)
    for code in found:
        if not re.fullmatch(r"[A-Z]+\d+", code):
            raise ConfigurationError(f"category {code!r}; allowed: a code such as 'O1' or 'S15'")
    return {code: f"{code}: {text.strip()}\n" for code, text in found.items()}


def _with_block(pieces: Sequence[Piece], block: str) -> tuple[Piece, ...]:
    """Return the prompt with other hazards in its policy."""
    return tuple(
        Piece(_BLOCK.sub(lambda found: f"{found[1]}{block}{found[3]}", piece.text))
        if piece.trusted
        else piece
        for piece in pieces
    )


CARDS = (
    GuardCard(
        name="meta-llama/LlamaGuard-7b",
        family=LlamaGuard,
        options={"version": "1"},
        languages=("English",),
        licence="Llama 2 Community",
        gated=True,
        size="7B",
        signs=("O1: Violence and Hate", "O6: Self-Harm", "<END CONVERSATION>"),
    ),
    GuardCard(
        name="TheBloke/LlamaGuard-7B-AWQ",
        family=LlamaGuard,
        options={"version": "1"},
        languages=("English",),
        licence="Llama 2 Community",
        size="7B",
        note="AWQ, 4-bit, 3.9 GB; needs the extra [awq]",
    ),
    GuardCard(
        name="meta-llama/Meta-Llama-Guard-2-8B",
        family=LlamaGuard,
        options={"version": "2"},
        languages=("English",),
        licence="Llama 3 Community",
        gated=True,
        size="8B",
        signs=("S5: Specialized Advice", "S11: Sexual Content", "<END CONVERSATION>"),
    ),
    GuardCard(
        name="meta-llama/Llama-Guard-3-8B",
        family=LlamaGuard,
        options={"version": "3-8b"},
        languages=_EIGHT,
        licence="Llama 3.1 Community",
        gated=True,
        size="8B",
        signs=("<|start_header_id|>", "S5: Defamation", "S14: Code Interpreter Abuse"),
    ),
    GuardCard(
        name="meta-llama/Llama-Guard-3-8B-INT8",
        family=LlamaGuard,
        options={"version": "3-8b"},
        languages=_EIGHT,
        licence="Llama 3.1 Community",
        gated=True,
        size="8B",
        quantization="8bit",
    ),
    GuardCard(
        name="meta-llama/Llama-Guard-3-1B",
        family=LlamaGuard,
        options={"version": "3-1b"},
        languages=_EIGHT,
        licence="Llama 3.2 Community",
        gated=True,
        size="1B",
        signs=("<|start_header_id|>", '"S5": "Defamation', "excluded_category_keys"),
    ),
    GuardCard(
        name="meta-llama/Llama-Guard-4-12B",
        family=LlamaGuard,
        options={"version": "4"},
        languages=_EIGHT,
        licence="Llama 4 Community",
        gated=True,
        size="12B",
        note="text only; images are named as unchecked",
        signs=("<|header_start|>", "S5: Defamation"),
    ),
)
