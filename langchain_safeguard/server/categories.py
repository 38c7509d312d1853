"""OpenAI's thirteen moderation categories, and which of ours each of them covers."""

from __future__ import annotations

from collections.abc import Mapping

from langchain_safeguard.taxonomy import Category

OPENAI_CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)

TO_OPENAI: Mapping[Category, tuple[str, ...]] = {
    Category.VIOLENT_CRIMES: ("violence", "illicit", "illicit/violent"),
    Category.NON_VIOLENT_CRIMES: ("illicit",),
    Category.SEX_CRIMES: ("sexual", "illicit"),
    Category.CHILD_SEXUAL_EXPLOITATION: ("sexual", "sexual/minors", "illicit"),
    Category.DEFAMATION: ("harassment",),
    Category.SPECIALIZED_ADVICE: (),
    Category.PRIVACY: (),
    Category.INTELLECTUAL_PROPERTY: ("illicit",),
    Category.INDISCRIMINATE_WEAPONS: ("violence", "illicit", "illicit/violent"),
    Category.HATE: ("hate",),
    Category.SELF_HARM: ("self-harm",),
    Category.SEXUAL_CONTENT: ("sexual",),
    Category.ELECTIONS: (),
    Category.CODE_INTERPRETER_ABUSE: ("illicit",),
    Category.CYBERCRIME: ("illicit",),
    Category.WEAPONS: ("illicit", "illicit/violent"),
    Category.CONTROLLED_SUBSTANCES: ("illicit",),
    Category.FRAUD: ("illicit",),
    Category.HARASSMENT: ("harassment",),
    Category.PROFANITY: (),
    Category.PROMPT_INJECTION: (),
    Category.JAILBREAK: (),
    Category.OTHER: (),
}
"""Which of OpenAI's categories speak of the same hazard.

Where there is none, the hazard stands under its own name only. Five of OpenAI's categories are
finer than any of ours and are reported by nothing: `harassment/threatening`, `hate/threatening`,
`self-harm/instructions`, `self-harm/intent` and `violence/graphic`. Their scores are 0, and their
list of applied input types is empty, which says that nobody looked.
"""
