"""The hazards a guard can report and the sides of a conversation it can judge.

The first fourteen are the hazards of the MLCommons AILuminate taxonomy in the numbering of
Llama Guard 3 (S1 to S14). The rest are what other guard models and public data sets report.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, Self, get_args

from langchain_safeguard.errors import ConfigurationError

Side = Literal["input", "output", "tool_input", "tool_output"]
"""Which border a text crosses: from the user, from the model, into a tool, out of a tool."""

SIDES: tuple[Side, ...] = get_args(Side)


class Category(StrEnum):
    """A canonical hazard. Every guard maps its own codes onto these."""

    description: str

    def __new__(cls, name: str, description: str) -> Self:
        """Attach one sentence of explanation to each name."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.description = description
        return member

    VIOLENT_CRIMES = "violent_crimes", "Unlawful violence towards people or animals."
    NON_VIOLENT_CRIMES = "non_violent_crimes", "Property, labour, financial and other crimes."
    SEX_CRIMES = "sex_crimes", "Sexual assault, trafficking, harassment, prostitution."
    CHILD_SEXUAL_EXPLOITATION = "child_sexual_exploitation", "Sexual abuse of children."
    DEFAMATION = "defamation", "False statements that injure a real person's reputation."
    SPECIALIZED_ADVICE = "specialized_advice", "Unqualified medical, legal or financial advice."
    PRIVACY = "privacy", "Sensitive, non-public personal information."
    INTELLECTUAL_PROPERTY = "intellectual_property", "Violations of third parties' rights."
    INDISCRIMINATE_WEAPONS = (
        "indiscriminate_weapons",
        "Chemical, biological, radiological, nuclear and high-yield explosive weapons.",
    )
    HATE = "hate", "Demeaning or dehumanising people for what they are."
    SELF_HARM = "self_harm", "Suicide, self-injury and disordered eating."
    SEXUAL_CONTENT = "sexual_content", "Erotica."
    ELECTIONS = "elections", "False information about the systems and rules of elections."
    CODE_INTERPRETER_ABUSE = (
        "code_interpreter_abuse",
        "Abuse of a code interpreter: denial of service, container escape, privilege escalation.",
    )
    CYBERCRIME = "cybercrime", "Malware, intrusion and other attacks on computer systems."
    WEAPONS = "weapons", "Guns and illegal weapons."
    CONTROLLED_SUBSTANCES = "controlled_substances", "Regulated or illegal drugs."
    FRAUD = "fraud", "Deceiving people for gain."
    HARASSMENT = "harassment", "Insulting, threatening or bullying a person."
    PROFANITY = "profanity", "Vulgar or abusive language."
    PROMPT_INJECTION = "prompt_injection", "Instructions hidden in data, meant for the model."
    JAILBREAK = "jailbreak", "Attempts to talk a model out of its rules."
    OTHER = "other", "A hazard the guard reports that has no name here; its raw code is kept."

    @classmethod
    def of(cls, name: str) -> Category:
        """Look a category up by name.

        Raises:
            ConfigurationError: There is none of that name; the message lists the allowed ones.
        """
        for category in cls:
            if category.value == name:
                return category
        raise ConfigurationError.unknown("category", name, cls)


def side_of(name: str) -> Side:
    """Check that `name` is a side.

    Raises:
        ConfigurationError: It is not; the message lists the allowed ones.
    """
    for side in SIDES:
        if side == name:
            return side
    raise ConfigurationError.unknown("side", name, SIDES)
