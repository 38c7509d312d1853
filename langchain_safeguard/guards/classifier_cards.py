"""The sequence classifiers that are known by name.

Labels and their orders: the models' cards, and the code that evaluates them (PurpleLlama, llm-guard
and DuoGuard on GitHub). The names in a checkpoint's own config come first; an order given here only
counts where the config has none, and a name that is not given here is a hazard.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_safeguard.guards.card import GuardCard
from langchain_safeguard.guards.label_map import Meaning
from langchain_safeguard.guards.sequence_classifier import SequenceClassifier
from langchain_safeguard.taxonomy import Category, Side


def _options(
    name: str, labels: Mapping[str, Meaning], activation: str, **more: Any
) -> dict[str, Any]:
    return {
        "name": name,
        "labels": labels,
        "order": tuple(labels),
        "activation": activation,
        # Not every version of a checkpoint names its labels alike.
        "strict": False,
        **more,
    }


_ATTACK_SIDES: tuple[Side, ...] = ("input", "tool_output")
_EIGHT = ("English", "French", "German", "Hindi", "Italian", "Portuguese", "Spanish", "Thai")
_FOUR = ("English", "French", "German", "Spanish")

_PROMPT_GUARD_1 = _options(
    "prompt-guard-1",
    {
        "BENIGN": None,
        "INJECTION": Category.PROMPT_INJECTION,
        "JAILBREAK": Category.JAILBREAK,
    },
    "softmax",
    # Every instruction looks like an injection, and giving instructions is what users do.
    by_side={"input": {"INJECTION": None}},
    sides=_ATTACK_SIDES,
)
_PROMPT_GUARD_2 = _options(
    "prompt-guard-2",
    {"BENIGN": None, "MALICIOUS": Category.JAILBREAK},
    "softmax",
    # One label for both: in what a tool brings, such words are an injection.
    by_side={"tool_output": {"MALICIOUS": Category.PROMPT_INJECTION}},
    sides=_ATTACK_SIDES,
)
_PROTECT_AI = _options(
    "protectai-injection",
    {"SAFE": None, "INJECTION": Category.PROMPT_INJECTION},
    "softmax",
    sides=_ATTACK_SIDES,
)
_TOXIC_BERT = _options(
    "toxic-bert",
    {
        "toxic": Category.HARASSMENT,
        "severe_toxic": Category.HARASSMENT,
        "obscene": Category.PROFANITY,
        "threat": Category.HARASSMENT,
        "insult": Category.HARASSMENT,
        "identity_hate": Category.HATE,
    },
    "sigmoid",
)
_DUO_GUARD = _options(
    "duo-guard",
    {
        "Violent crimes": Category.VIOLENT_CRIMES,
        "Non-violent crimes": Category.NON_VIOLENT_CRIMES,
        "Sex-related crimes": Category.SEX_CRIMES,
        "Child sexual exploitation": Category.CHILD_SEXUAL_EXPLOITATION,
        "Specialized advice": Category.SPECIALIZED_ADVICE,
        "Privacy": Category.PRIVACY,
        "Intellectual property": Category.INTELLECTUAL_PROPERTY,
        "Indiscriminate weapons": Category.INDISCRIMINATE_WEAPONS,
        "Hate": Category.HATE,
        "Suicide and self-harm": Category.SELF_HARM,
        "Sexual content": Category.SEXUAL_CONTENT,
        "Jailbreak prompts": Category.JAILBREAK,
    },
    "sigmoid",
)
_HAP = _options(
    "granite-hap",
    {"clean": None, "HAP": (Category.HATE, Category.HARASSMENT, Category.PROFANITY)},
    "softmax",
)
_TEXT_MODERATION = _options(
    "text-moderation",
    {
        "S": Category.SEXUAL_CONTENT,
        "H": Category.HATE,
        "V": Category.VIOLENT_CRIMES,
        "HR": Category.HARASSMENT,
        "SH": Category.SELF_HARM,
        "S3": Category.CHILD_SEXUAL_EXPLOITATION,
        "H2": Category.HATE,
        "V2": Category.VIOLENT_CRIMES,
        "OK": None,
    },
    "softmax",
)


def _card(name: str, options: Mapping[str, Any], **facts: Any) -> GuardCard:
    facts.setdefault("labels", ())
    if "sides" in options:
        facts["sides"] = options["sides"]
    return GuardCard(
        name=name, family=SequenceClassifier, options=options, classifier=True, **facts
    )


CARDS = (
    _card(
        "meta-llama/Prompt-Guard-86M",
        _PROMPT_GUARD_1,
        languages=_EIGHT,
        licence="Llama 3.1 Community",
        gated=True,
        size="86M",
        note="in prompts only jailbreaks count, in what tools bring injections, too",
        labels=("BENIGN", "INJECTION", "JAILBREAK"),
    ),
    _card(
        "meta-llama/Llama-Prompt-Guard-2-86M",
        _PROMPT_GUARD_2,
        languages=_EIGHT,
        licence="Llama 4 Community",
        gated=True,
        size="86M",
        note="attempts to override instructions, no other harm",
        labels=("BENIGN", "MALICIOUS"),
    ),
    _card(
        "meta-llama/Llama-Prompt-Guard-2-22M",
        _PROMPT_GUARD_2,
        languages=("English",),
        licence="Llama 4 Community",
        gated=True,
        size="22M",
        note="attempts to override instructions, no other harm",
    ),
    _card(
        "protectai/deberta-v3-base-prompt-injection-v2",
        _PROTECT_AI,
        languages=("English",),
        licence="Apache 2.0",
        size="184M",
        note="injections, no jailbreaks; takes system prompts for injections",
        labels=("SAFE", "INJECTION"),
    ),
    _card(
        "unitary/toxic-bert",
        _TOXIC_BERT,
        languages=("English",),
        licence="Apache 2.0",
        size="110M",
        labels=("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"),
    ),
    *(
        _card(
            f"DuoGuard/{name}",
            _DUO_GUARD,
            languages=_FOUR,
            licence="not known",
            size=size,
            base_model=base,
            note="a text by itself; an answer is not read with its question",
        )
        for name, size, base in (
            ("DuoGuard-0.5B", "0.5B", "Qwen/Qwen2.5-0.5B"),
            ("DuoGuard-1B-Llama-3.2-transfer", "1B", "meta-llama/Llama-3.2-1B"),
            ("DuoGuard-1.5B-transfer", "1.5B", "Qwen/Qwen2.5-1.5B"),
        )
    ),
    *(
        _card(
            f"ibm-granite/granite-guardian-hap-{size}",
            _HAP,
            languages=("English",),
            licence="Apache 2.0",
            size=size.upper(),
            note="hate, abuse and profanity",
        )
        for size in ("38m", "125m")
    ),
    _card(
        "KoalaAI/Text-Moderation",
        _TEXT_MODERATION,
        languages=("English",),
        licence="not known",
        size="0.1B",
        note="short texts; weak on harmful requests",
        labels=("S", "H", "V", "HR", "SH", "S3", "H2", "V2", "OK"),
    ),
)
