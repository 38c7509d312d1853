"""Rewriting only the part of a text that offends, so that the rest of it is kept.

A rule may say what stands in place of an unsafe text. A long text, though, is seldom unsafe as a
whole: one paragraph of a web page tells the model what to do. So its parts are judged, each by
itself, in ever smaller pieces, and those that offend are rewritten as the policy says. A part that
it would even block, looked at by itself, is cut out. What comes of it is judged again as a whole,
as after any rewriting.

An injection goes with the line it stands in: "Ignore your instructions." is followed by what the
attacker wants done, and that looks harmless by itself.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from copy import copy
from dataclasses import replace

from langchain_safeguard.decision import Decision
from langchain_safeguard.plans import adrive, drive
from langchain_safeguard.policy import Action, Policy, Rule
from langchain_safeguard.readable import Readable
from langchain_safeguard.rewriters import Replace, as_rewriter
from langchain_safeguard.safeguard import Safeguard
from langchain_safeguard.taxonomy import Category, Side

REMOVED = "[removed]"
"""What stands in place of a part that is cut out, where the policy has no text for it."""

Excision = Generator[list[str], list[Decision], list[str]]
"""Yields the texts it wants judged, gets the decisions sent in, and returns the texts to use."""

_AT_ONCE = 32
"""Into how many pieces a text is cut before the offending ones are cut smaller."""
_COMMANDS = {Category.PROMPT_INJECTION.value, Category.JAILBREAK.value}
"""Hazards whose sentences belong together."""
_SEPARATORS = (
    re.compile(r"\n[^\S\n]*\n\s*"),
    re.compile(r"\n\s*"),
    re.compile(r"(?<=[.!?。！？])\s+"),
)


def excised(texts: Sequence[str], cut: str = REMOVED) -> Excision:
    """Rewrite the parts of some texts that offend.

    Args:
        texts: The texts.
        cut: What stands in place of a part that the policy blocks.
    """
    decisions = yield [*texts]
    better = []
    for text, decision in zip(texts, decisions, strict=True):
        better.append(text if decision.passes else (yield from _smaller(text, decision, cut)))
    return better


def _smaller(text: str, decision: Decision, cut: str) -> Generator[list[str], list[Decision], str]:
    """Rewrite the smallest part that offends: of this text, which does."""
    whole = decision.text if decision.action is Action.REWRITE else cut
    pieces = _pieces(text, sentences=_COMMANDS.isdisjoint(decision.categories))
    if len(pieces) == 1:
        return whole
    # What separates them stays.
    cores = [piece.strip() for piece in pieces]
    words = yield from excised([core for core in cores if core], cut)
    new = iter(words)
    joined = "".join(
        piece.replace(core, next(new), 1) if core else piece
        for piece, core in zip(pieces, cores, strict=True)
    )
    if joined == text:
        return whole
    [again] = yield [joined]
    return joined if again.passes else whole


def _pieces(text: str, *, sentences: bool) -> list[str]:
    """Cut a text at its paragraphs, or else lines, or else sentences; joined they are the text."""
    for separator in _SEPARATORS if sentences else _SEPARATORS[:-1]:
        ends = [match.end() for match in separator.finditer(text)]
        pieces = [
            text[begin:end]
            for begin, end in zip([0, *ends], [*ends, len(text)], strict=True)
            if end > begin
        ]
        if sum(bool(piece.strip()) for piece in pieces) > 1:
            size = -(-len(pieces) // _AT_ONCE)
            return ["".join(pieces[at : at + size]) for at in range(0, len(pieces), size)]
    return [text]


class PartRewriter:
    """A rewriter that rewrites what offends in a text, or in the texts of a value.

    Args:
        safeguard: Judges the parts, and has the policy that says how to rewrite them.
        side: The side on which they are judged.
        value: What was judged, if it is more than its text: it keeps its shape.
        header: What stands in front of the value's text when it is judged.

    Attributes:
        value: The value as it was last rewritten.
    """

    def __init__(
        self, safeguard: Safeguard, side: Side, value: Readable | None = None, header: str = ""
    ) -> None:
        """Store."""
        # Each part is no decision of its own: the whole is recorded.
        self._parts = safeguard.variant(recorded=False)
        self._safeguard = safeguard
        self._side = side
        self._header = header
        self._cut = _replacement(safeguard.policy)
        self.value = value

    @property
    def safeguard(self) -> Safeguard:
        """Return the one to judge the whole with: it rewrites by this rewriter."""
        policy = self._safeguard.policy
        rules = tuple(_rewriting(rule, self) for rule in policy.rules)
        if all(new is old for new, old in zip(rules, policy.rules, strict=True)):
            return self._safeguard
        return self._safeguard.variant(replace(policy, rules=rules))

    def __call__(self, text: str) -> str:
        """Rewrite the value, and return what is judged of it now."""
        return self._rewritten(self.excise(self._texts(text)))

    async def acall(self, text: str) -> str:
        """Rewrite the value, and return what is judged of it now."""
        return self._rewritten(await self.aexcise(self._texts(text)))

    def excise(self, texts: Sequence[str]) -> list[str]:
        """Rewrite the parts of some texts that offend; see `excised`."""
        return drive(excised(texts, self._cut), self._judge)

    async def aexcise(self, texts: Sequence[str]) -> list[str]:
        """Rewrite the parts of some texts that offend; see `excised`."""
        return await adrive(excised(texts, self._cut), self._ajudge)

    def _judge(self, texts: Sequence[str]) -> list[Decision]:
        return self._parts.batch(texts, side=self._side)

    async def _ajudge(self, texts: Sequence[str]) -> list[Decision]:
        return await self._parts.abatch(texts, side=self._side)

    def _texts(self, text: str) -> Sequence[str]:
        return [text] if self.value is None else self.value.texts

    def _rewritten(self, texts: list[str]) -> str:
        if self.value is None:
            return texts[0]
        self.value = self.value.with_texts(texts)
        return self._header + self.value.text


def _replacement(policy: Policy) -> str:
    """Return what the policy puts in place of unsafe texts."""
    rewriters = [as_rewriter(rule.rewrite) for rule in policy.rules if rule.rewrite is not None]
    return next((each.text for each in rewriters if isinstance(each, Replace)), REMOVED)


def _rewriting(rule: Rule, rewriter: PartRewriter) -> Rule:
    if Action.REWRITE not in rule.thresholds:
        return rule
    rule = copy(rule)
    object.__setattr__(rule, "rewrite", rewriter)
    return rule
