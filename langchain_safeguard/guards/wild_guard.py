"""WildGuard: is the request harmful, is the answer a refusal, is the answer harmful.

Prompt: the one of Ai2's wildguard package (`templates/wild_guard.jinja`; Apache 2.0).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product

from langchain_safeguard.conversation import Conversation
from langchain_safeguard.engines import Completion, Prompt, Reading, Writing
from langchain_safeguard.errors import GuardOutputError
from langchain_safeguard.guards.card import GuardCard
from langchain_safeguard.guards.chat_template import ChatTemplate, shipped, verbatim
from langchain_safeguard.guards.dialogue import ANSWERS, exchange
from langchain_safeguard.guards.evidence import harmless, judged
from langchain_safeguard.guards.family import LanguageFamily
from langchain_safeguard.taxonomy import Category, Side
from langchain_safeguard.verdict import Verdict

_REQUEST, _REFUSAL, _RESPONSE = "Harmful request", "Response refusal", "Harmful response"
_WORDS = ("yes", "no")
_PATHS = tuple(product(_WORDS, repeat=2))
"""What the first two lines of an answer can say."""
_ANSWER = re.compile(
    rf"\s*{_REQUEST}:\s*(?P<request>yes|no)[ \t]*\n"
    rf"\s*{_REFUSAL}:\s*(?P<refusal>yes|no|n/a)[ \t]*\n"
    rf"\s*{_RESPONSE}:\s*(?P<response>yes|no|n/a)\s*(?:</s>)?\s*",
    re.IGNORECASE,
)
_MARKERS = ("<|user|>", "<|assistant|>", "[INST]", "[/INST]")
_SPEAKERS = ("Human user", "AI assistant", "Answers", _REQUEST, _REFUSAL, _RESPONSE)


class WildGuard(LanguageFamily):
    """Judges the last question, or the last answer with its question.

    The model writes three lines. On questions the first one is read. On answers the third is what
    counts, and it depends on what the model says in the first two: all four ways in which these can
    go are asked at once, and the one that the model would have gone is read. That gives the
    probability at the very place where the model's own answer has its verdict, without waiting for
    it to write a dozen tokens one by one.

    Args:
        template: Not used: the model's prompt is no chat template.
    """

    name = "wild-guard"
    categories = frozenset({Category.OTHER})

    def __init__(self, *, template: str | None = None) -> None:
        """Prepare the prompt."""
        self._prompt = ChatTemplate(shipped("wild_guard"), markers=_MARKERS, speakers=_SPEAKERS)

    def render(self, conversation: Conversation, side: Side) -> Sequence[Prompt]:
        """Render the last exchange: one prompt for a question, one per path for an answer."""
        question, answer = exchange(conversation, side)
        pieces = self._prompt.render(
            [verbatim("user", question), verbatim("assistant", answer or "")]
        )
        if answer is None:
            return [Prompt(pieces, (f"{_REQUEST}:", _reading(_REQUEST)))]
        return [Prompt(pieces, _answer(*path)) for path in _PATHS]

    def read(self, answers: Sequence[Completion], side: Side) -> Verdict:
        """Read the probability of harm on the path that the model takes."""
        tokens = answers[0].tokens
        line = _RESPONSE if side in ANSWERS else _REQUEST
        if all(line in answer.readings for answer in answers):
            score = _taken(answers).readings[line]["yes"]
            return judged(self.name, score, table={}, tokens=tokens)
        written = [_said(answer.text or "", side) for answer in answers]
        words = (answers[0].text or "").strip()
        if any(written):
            return judged(self.name, None, table={}, tokens=tokens, explanation=words)
        return harmless(self.name, tokens, words)


def _reading(line: str) -> Reading:
    return Reading(line, {word: (f" {word}", word) for word in _WORDS})


def _answer(request: str, refusal: str) -> tuple[str | Reading | Writing, ...]:
    return (
        f"{_REQUEST}:",
        _reading(_REQUEST),
        f" {request}\n{_REFUSAL}:",
        _reading(_REFUSAL),
        f" {refusal}\n{_RESPONSE}:",
        _reading(_RESPONSE),
    )


def _taken(answers: Sequence[Completion]) -> Completion:
    """Return the answer on whose path the model says its likeliest word in every line."""
    if len(answers) == 1:
        return answers[0]
    by_path = dict(zip(_PATHS, answers, strict=True))
    request = _likeliest(answers[0], _REQUEST)
    return by_path[request, _likeliest(by_path[request, "yes"], _REFUSAL)]


def _likeliest(answer: Completion, line: str) -> str:
    found = answer.readings[line]
    return max(found, key=lambda word: found[word])


def _said(text: str, side: Side) -> bool:
    """Read what the model wrote: whether the judged text is harmful."""
    match = _ANSWER.fullmatch(text)
    if match is None:
        raise GuardOutputError("the answer does not have WildGuard's three lines")
    word = match["response" if side in ANSWERS else "request"].lower()
    if word == "n/a":
        raise GuardOutputError("the answer does not judge the response")
    return word == "yes"


CARDS = (
    GuardCard(
        name="allenai/wildguard",
        family=WildGuard,
        languages=("English",),
        licence="Apache 2.0",
        gated=True,
        size="7B",
        note="harm of requests and of responses, a refusal told apart; no hazards named",
    ),
)
