"""Granite Guardian 3.0 to 3.3 and 4.1: `Yes` or `No` to one criterion at a time.

Prompts: IBM's template of 3.0 (`templates/granite_guardian_3_0.jinja`), and what the cookbooks of
github.com/ibm-granite/granite-guardian hand to the templates of the later versions; Apache 2.0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from langchain_safeguard.conversation import Conversation
from langchain_safeguard.engines import Completion, Piece, Prompt, Reading, Writing
from langchain_safeguard.errors import ConfigurationError, GuardOutputError
from langchain_safeguard.guards.card import GuardCard
from langchain_safeguard.guards.chat_template import ChatTemplate, Message, shipped, verbatim
from langchain_safeguard.guards.dialogue import ANSWERS, alternating
from langchain_safeguard.guards.evidence import Codes, harmless, judged, judged_each
from langchain_safeguard.guards.family import LanguageFamily
from langchain_safeguard.guards.options import flag
from langchain_safeguard.taxonomy import SIDES, Category, Side
from langchain_safeguard.verdict import Verdict

Version = Literal["3.0", "3.1", "3.2", "3.3", "4.1"]

_TABLE: Codes = {
    "harm": (Category.OTHER,),
    "social_bias": (Category.HATE,),
    "jailbreak": (Category.JAILBREAK,),
    "profanity": (Category.PROFANITY,),
    "sexual_content": (Category.SEXUAL_CONTENT,),
    "unethical_behavior": (Category.NON_VIOLENT_CRIMES,),
    "violence": (Category.VIOLENT_CRIMES,),
    "harm_engagement": (Category.OTHER,),
}
_OF_PROMPTS = frozenset({"jailbreak"})
"""Criteria that IBM's table has for prompts alone; answers are not asked about them."""
_DEFINITIONS = {
    "harm": "The text promotes or contains content that is universally harmful across all contexts "
    "and audiences, including content that could cause physical, psychological, or social harm.",
    "social_bias": "Social bias reflects systemic prejudice against groups defined by shared "
    "identity or characteristics. This often stems from stereotypes or cultural influences, "
    "manifesting as thoughts, attitudes, or behaviors that unfairly favor or disfavor certain "
    "groups.",
    "jailbreak": "A jailbreak text refers to the deliberate evasion of an AI system's built-in "
    "safeguards or ethical boundaries. This practice often involves crafting specific prompts or "
    "scenarios intended to manipulate the AI into producing restricted or inappropriate content.",
    "profanity": "Profanity refers to the use of language deemed offensive or socially "
    "unacceptable in a given context. This primarily includes curse words, swear words, and crude "
    "expressions, though it typically excludes slurs or derogatory terms specifically targeting "
    "certain groups.",
    "sexual_content": "Material explicitly related to sexual activities, anatomy, or desires. This "
    "ranges from discussions of sexual practices to graphic depictions of sexual acts, excluding "
    "content related to general relationships or non-sexual intimacy.",
    "unethical_behavior": "Unethical behavior refers to actions that violate moral or professional "
    "standards, particularly those involving exploitation for personal gain or a disregard for "
    "others' well-being. This category excludes physical violence or explicit bias and instead "
    "encompasses activities like fraud, theft, or the abuse of power.",
    "violence": "Violence refers to content that promotes or depicts physical harm to individuals "
    "or groups. This includes depictions of assault, self-harm, or the creation of a hostile "
    "environment through threats or intimidation.",
}
"""IBM's own words for its criteria, for 4.1, which is told each criterion in full."""
_JUDGE = {
    False: "<guardian><no-think>As a judge agent, assess whether the provided text meets the given "
    "judging criteria using all available information, including conversations, documents, and "
    "tools. Provide your score immediately without explanation. Output empty <think>\\n</think> "
    "tags followed by your score in <score></score> tags.",
    True: "<guardian><think>As a judge agent, carefully analyze whether the provided text meets "
    "the given judging criteria. Use all available information, including conversations, "
    "documents, and tools. Reason through the evidence step by step before providing your score. "
    "Wrap your reasoning in <think></think> tags, then provide your score in <score></score> tags.",
}
"""What 4.1 is told to do, without and with a reasoned answer."""
_SCHEMA = "If the last {speaker}'s text meets the criteria, return 'yes'; otherwise, return 'no'."
_LONGEST = 1024
"""The most tokens of written reasons."""
_BETWEEN = 8
"""The most tokens from the end of the reasons to the verdict; `\\n<score>` has four or so."""

_YES, _NO = ("Yes", " Yes", "yes", " yes"), ("No", " No", "no", " no")
_WORD = Reading("verdict", {"yes": _YES, "no": _NO})
_SCORE = Reading("verdict", {"yes": (" yes", "yes"), "no": (" no", "no")})
_PLAIN = re.compile(
    r"\s*(yes|no)\s*(?:<confidence>\s*(?:high|low)\s*</confidence>\s*)?(?:<\|end_of_text\|>\s*)?",
    re.IGNORECASE,
)
_THOUGHT = re.compile(r"<think>(.*?)</think>", re.DOTALL)
_TAGGED = re.compile(r"\s*<score>\s*(yes|no)\s*</score>\s*(?:<\|end_of_text\|>\s*)?", re.IGNORECASE)
_MARKERS = (
    "<start_of_turn>",
    "<end_of_turn>",
    "<start_of_risk_definition>",
    "<end_of_risk_definition>",
    "<guardian>",
    "<no-think>",
    "<think>",
    "</think>",
    "<score>",
    "</score>",
    "### Criteria:",
    "### Scoring Schema:",
)
_SPEAKERS = ("User Message", "Assistant Message", "Context")


@dataclass(frozen=True)
class _Edition:
    """What differs from one version to the next.

    Attributes:
        asks: How it is told the criterion: by a risk's name, a criterion's, or in a last message.
        sign: What its template has.
        template: The shipped template, where IBM's is known.
    """

    asks: Literal["risk", "criterion", "block"]
    sign: str = "guardian_config"
    template: str | None = None

    @property
    def tagged(self) -> bool:
        """Tell whether it answers in tags, after reasons."""
        return self.asks != "risk"


_EDITIONS: dict[str, _Edition] = {
    "3.0": _Edition("risk", template="granite_guardian_3_0"),
    "3.1": _Edition("risk"),
    "3.2": _Edition("risk"),
    "3.3": _Edition("criterion"),
    "4.1": _Edition("block", sign=""),
}


class GraniteGuardian(LanguageFamily):
    """Judges the last message, with those before it, by each criterion apart.

    The score is the probability of `Yes` against `No`, the riskiest criterion's.

    Args:
        version: Which Granite Guardian it is.
        template: The checkpoint's own chat template. Only 3.0 does without; the templates of the
            others are not known outside their checkpoints.
        risks: What to ask about: `"harm"`, `"social_bias"`, `"jailbreak"`, `"profanity"`,
            `"sexual_content"`, `"unethical_behavior"`, `"violence"`, and from 3.2 to 3.3
            `"harm_engagement"`; one, several, or a mapping from name to definition, in which the
            model's own have `None`. Findings of one's own are `other`, with their name as code.
        explain: Let 3.3 or 4.1 write its reasons before the verdict; they become
            `Verdict.explanation`. IBM found harm no better judged by it.

    Raises:
        ConfigurationError: A value is unknown.
    """

    def __init__(
        self,
        version: Version = "3.0",
        *,
        template: str | None = None,
        risks: str | Sequence[str] | Mapping[str, str | None] = "harm",
        explain: bool = False,
    ) -> None:
        """Look the version and the risks up."""
        if version not in _EDITIONS:
            raise ConfigurationError.unknown("version", version, _EDITIONS)
        self._edition = _EDITIONS[version]
        self.name = f"granite-guardian-{version}"
        if template is None or self._edition.sign not in template:
            template = self._edition.template and shipped(self._edition.template)
        if flag("explain", explain) and not self._edition.tagged:
            raise ConfigurationError(f"explain=True, but Granite Guardian {version} never explains")
        self._template = template and ChatTemplate(template, markers=_MARKERS, speakers=_SPEAKERS)
        self._explain = explain
        self._risks = _definitions(risks, version)
        self._table = {name: _TABLE.get(name, (Category.OTHER,)) for name in self._risks}
        self.sides = frozenset(side for side in SIDES if self._asked(side))
        self.categories = frozenset(
            category for categories in self._table.values() for category in categories
        )

    def render(self, conversation: Conversation, side: Side) -> Sequence[Prompt]:
        """Render a prompt per criterion.

        Raises:
            ConfigurationError: There is no template for this version.
        """
        if not self._template:
            raise ConfigurationError(
                f"{self.name} is asked through its checkpoint's own chat template, and this "
                "checkpoint has none for guards; give template="
            )
        turns = alternating(conversation, side)
        messages = [verbatim(turn["role"], turn["content"]) for turn in turns]
        prompts = []
        for name in self._asked(side):
            asked, options = self._question(name, turns[-1]["role"])
            pieces = self._template.render([*messages, *asked], **options)
            prompts.append(Prompt(pieces, self._answer()))
        return prompts

    def read(self, answers: Sequence[Completion], side: Side) -> Verdict:
        """Read the probability of `Yes` for each criterion."""
        tokens = sum(answer.tokens or 0 for answer in answers) or None
        by_name = dict(zip(self._asked(side), answers, strict=True))
        if all("verdict" in answer.readings for answer in answers):
            risks = {name: answer.readings["verdict"]["yes"] for name, answer in by_name.items()}
            verdict = judged_each(self.name, risks, table=self._table, tokens=tokens)
        else:
            met = [name for name, answer in by_name.items() if self._said(answer.text or "")]
            verdict = harmless(self.name, tokens)
            if met:
                verdict = judged(self.name, None, table=self._table, listed=met, tokens=tokens)
        return replace(verdict, explanation=_reasons(by_name))

    def _asked(self, side: Side) -> list[str]:
        """Return the criteria that are asked about on a side."""
        return [name for name in self._risks if side not in ANSWERS or name not in _OF_PROMPTS]

    def _question(self, name: str, speaker: str) -> tuple[list[Message], dict[str, Any]]:
        """Return the last message and the template's options for a criterion."""
        own = self._risks[name]
        if self._edition.asks == "risk":
            config = {"risk_name": name, **({} if own is None else {"risk_definition": own})}
            return [], {"guardian_config": config}
        schema = _SCHEMA.format(speaker=speaker)
        if self._edition.asks == "criterion":
            config = {"criteria_id": name}
            if own is not None:
                config = {"custom_criteria": own, "custom_scoring_schema": schema}
            return [], {"guardian_config": config, "think": self._explain}
        block = (
            f"{_JUDGE[self._explain]}\n\n### Criteria: {own or _DEFINITIONS[name]}\n\n"
            f"### Scoring Schema: {schema}"
        )
        return [{"role": "user", "content": (Piece(block),)}], {}

    def _answer(self) -> tuple[str | Reading | Writing, ...]:
        if not self._edition.tagged:
            return (_WORD,)
        if self._explain:
            # What stands between the tags is written too: in some vocabularies the line break is
            # part of a tag's last token.
            reasons = Writing(_LONGEST, until="</think>")
            return ("<think>", reasons, Writing(_BETWEEN, until="<score>"), _SCORE)
        return ("<think>\n</think>\n<score>", _SCORE)

    def _said(self, text: str) -> bool:
        """Read what the model wrote: whether the criterion is met."""
        if self._edition.tagged:
            match = _TAGGED.fullmatch(_THOUGHT.sub("", text))
        else:
            match = _PLAIN.fullmatch(text)
        if match is None:
            raise GuardOutputError("the answer is neither 'yes' nor 'no'")
        return match[1].lower() == "yes"


def _definitions(
    risks: str | Sequence[str] | Mapping[str, str | None], version: str
) -> dict[str, str | None]:
    """Return the definitions of the risks; `None` stands for the model's own."""
    found: dict[str, str | None]
    if isinstance(risks, Mapping):
        found = dict(risks)
    elif isinstance(risks, str | list | tuple):
        found = dict.fromkeys([risks] if isinstance(risks, str) else risks)
    else:
        raise ConfigurationError(f"risks={risks!r}; allowed: a name, a list of them, or a mapping")
    known = set(_TABLE) if version in ("3.2", "3.3") else set(_DEFINITIONS)
    if not found:
        raise ConfigurationError(f"risks={risks!r}; name at least one")
    for name, text in found.items():
        if not isinstance(text, str | None):
            raise ConfigurationError(f"risk {name!r} has {text!r}; allowed: a text, or None")
        if not text and name not in known:
            raise ConfigurationError.unknown("risk", name, [*sorted(known), "any, with a text"])
        if text and name in known:
            raise ConfigurationError(f"risk {name!r} has a definition; give yours another name")
    return {name: text or None for name, text in found.items()}


def _reasons(answers: Mapping[str, Completion]) -> str | None:
    """Return the written reasons, each with its criterion where there are several."""
    found = {}
    for name, answer in answers.items():
        match = _THOUGHT.search(answer.text or "")
        if match is not None and match[1].strip():
            found[name] = match[1].strip()
    if len(answers) == 1:
        return next(iter(found.values()), None)
    return "\n\n".join(f"{name}: {reasons}" for name, reasons in found.items()) or None


CARDS = tuple(
    GuardCard(
        name=f"ibm-granite/granite-guardian-{version}-{size}",
        family=GraniteGuardian,
        options={"version": version},
        languages=("English",),
        licence="Apache 2.0",
        size=size.partition("-")[0].upper(),
        note=note,
        signs=signs,
    )
    for version, sizes, note, signs in (
        # The newest first: what the older templates have, the newer ones may have, too.
        ("4.1", ("8b",), "a criterion per prompt, also your own; explains itself if asked", ()),
        (
            "3.3",
            ("8b",),
            "a criterion per prompt, also your own; explains itself if asked",
            ("guardian_config", "criteria_id"),
        ),
        (
            "3.2",
            ("5b", "3b-a800m"),
            "a criterion per prompt, also your own",
            ("guardian_config", "risk_name", "harm_engagement"),
        ),
        ("3.1", ("2b", "8b"), "a criterion per prompt, also your own", ()),
        (
            "3.0",
            ("2b", "8b"),
            "a criterion per prompt, also your own",
            ("guardian_config", "risk_name", "<start_of_risk_definition>"),
        ),
    )
    for size in sizes
)
