"""The names of what the embedded guard scores, in the order of its outputs.

The first output is harm of any kind, then one output per harm category, then two heads of their
own for prompt injection and jailbreak, which are attacks on the application rather than harms.
"""

from __future__ import annotations

HARM_CATEGORIES: tuple[str, ...] = (
    "violent_crimes",
    "non_violent_crimes",
    "sex_crimes",
    "child_sexual_exploitation",
    "defamation",
    "specialized_advice",
    "privacy",
    "intellectual_property",
    "indiscriminate_weapons",
    "hate",
    "self_harm",
    "sexual_content",
    "elections",
    "cybercrime",
    "weapons",
    "controlled_substances",
    "fraud",
    "harassment",
    "profanity",
    "other",
)

ATTACKS: tuple[str, ...] = ("prompt_injection", "jailbreak")

CATEGORIES: tuple[str, ...] = (*HARM_CATEGORIES[:-1], *ATTACKS, HARM_CATEGORIES[-1])
"""What the guard reports, in the canonical order (`other` comes last)."""

OUTPUTS: tuple[str, ...] = ("harm", *HARM_CATEGORIES, *ATTACKS)
"""What a branch computes, one logit each."""
