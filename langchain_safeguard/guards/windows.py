"""Long texts: windows that overlap, all of them judged, so that nothing is cut off silently."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import isnan

from langchain_safeguard.conversation import Conversation, Turn
from langchain_safeguard.errors import GuardOutputError
from langchain_safeguard.taxonomy import Category, Side
from langchain_safeguard.verdict import Finding, Span, Verdict

_OVERLAP = 8
"""A window shares this part (one over it) with the one before it."""
_PART = 1 << 14
"""The characters of a long text that are tokenised at once."""
LEAST_ROOM = 32
"""The room for a text in a window, in tokens, however long the policy is."""


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a conversation that fits into a model.

    Attributes:
        conversation: The part: the last turns, and all or a stretch of the judged one.
        start: The first character of the judged text that is in it.
        end: One past the last one; `None` means to its end.
        dropped: How many earlier turns are left out.
    """

    conversation: Conversation
    start: int = 0
    end: int | None = None
    dropped: int = 0


def fit(
    conversation: Conversation,
    side: Side,
    *,
    measure: Callable[[Conversation], int],
    offsets: Callable[[str], Sequence[tuple[int, int]]],
    limit: int,
) -> list[Window]:
    """Cut a conversation into windows that a model can read whole.

    Earlier turns go first, the oldest before the others. A judged text that is still too long is
    read in stretches, with as much of the turns before it as fits into a quarter of the room.

    However long the texts are, neither function is called with much more than fits into a window.

    Args:
        conversation: The conversation.
        side: Which side is judged.
        measure: Returns how many tokens the model has to read for a conversation.
        offsets: Returns the characters of each token of a text.
        limit: The most tokens the model reads at once.
    """
    checked, turns = conversation.checked(side), conversation.context(side)

    def exceeds(texts: Sequence[str], most: int) -> bool:
        return _exceeds(texts, most, offsets)

    all_texts = [turn.text for turn in (checked, *reversed(turns))]
    if not exceeds(all_texts, limit) and measure(conversation) <= limit:
        return [Window(conversation)]
    bare = Conversation((replace(checked, text=""),))
    room = max(limit - measure(bare), LEAST_ROOM)
    too_long = exceeds([checked.text], limit)
    # More than the tokens of the bare text where markers or control tokens in it are spelled out.
    rendered = room if too_long else max(measure(Conversation((checked,))) - measure(bare), 0)
    for_context = max(room - rendered, room // 4)
    context: list[Turn] = []
    for turn in reversed(turns):
        if exceeds([turn.text], for_context):
            break
        # Measured with the words around it, which are part of what it costs.
        more = measure(Conversation((turn, *context, bare.turns[0]))) - measure(bare)
        if more > for_context:
            break
        context.insert(0, turn)
    dropped = len(turns) - len(context)
    whole = Conversation((*context, checked))
    tokens = _Tokens(checked.text, offsets)
    if not tokens.first(1) or (not too_long and measure(whole) <= limit):
        return [Window(whole, dropped=dropped)]
    return [
        replace(window, dropped=dropped)
        for window in _stretches(context, checked, tokens, measure=measure, limit=limit)
    ]


class _Tokens:
    """The characters of each token of a text, worked out as far as they are asked for.

    Args:
        text: The text.
        offsets: Returns the characters of each token of a text.
    """

    def __init__(self, text: str, offsets: Callable[[str], Sequence[tuple[int, int]]]) -> None:
        self._text = text
        self._offsets = offsets
        self._at = 0
        self._known: list[tuple[int, int]] = []

    def first(self, count: int) -> list[tuple[int, int]]:
        """Return the first tokens; fewer where the text ends."""
        while len(self._known) < count and self._at < len(self._text):
            part = self._text[self._at : self._at + _PART]
            self._known += [
                (self._at + start, self._at + end) for start, end in self._offsets(part)
            ]
            self._at += len(part)
        return self._known[:count]

    def forget(self, count: int) -> None:
        """Go on without the first tokens."""
        del self._known[:count]


def _exceeds(
    texts: Sequence[str], most: int, offsets: Callable[[str], Sequence[tuple[int, int]]]
) -> bool:
    """Tell whether texts have clearly more tokens than that; it reads no further than it must.

    What is short enough to be measured at once is not read at all.
    """
    if sum(map(len, texts)) <= _PART:
        return False
    # Where a text is cut to be read in parts there may be a token more than in the whole.
    most += most // 16
    for text in texts:
        most -= len(_Tokens(text, offsets).first(most + 1))
        if most < 0:
            return True
    return False


def _stretches(
    context: Sequence[Turn],
    checked: Turn,
    tokens: _Tokens,
    *,
    measure: Callable[[Conversation], int],
    limit: int,
) -> Iterator[Window]:
    """Cut a text into stretches that fit behind a context, each as long as it can be.

    How much a stretch costs is measured: what is spelled out in a prompt (markers, control tokens)
    is longer there, and whoever fills a text with it must not make all windows small.
    """
    around = measure(Conversation((*context, replace(checked, text=""))))
    room = max(limit - around, LEAST_ROOM)
    size = room
    while True:
        size = min(room, 2 * size)
        while True:
            stretch = tokens.first(size)
            start, stop = stretch[0][0], stretch[-1][1]
            part = Conversation((*context, replace(checked, text=checked.text[start:stop])))
            taken = measure(part) - around
            if taken <= room or size == 1:
                break
            size = max(min(size * room // taken, size - 1), 1)
        yield Window(part, start, stop)
        if len(tokens.first(size + 1)) <= size:
            return
        tokens.forget(size - size // _OVERLAP)


def riskiest(verdicts: Sequence[tuple[Window, Verdict]]) -> Verdict:
    """Make one verdict of those on the windows of one text: the worst of everything.

    Raises:
        GuardOutputError: A score is not a number: no maximum would show it.
    """
    if len(verdicts) == 1:
        [(window, verdict)] = verdicts
        return replace(verdict, dropped_turns=window.dropped)
    numbers = [n for _, v in verdicts for n in (v.score, *(f.score for f in v.findings))]
    if any(number is not None and isnan(number) for number in numbers):
        raise GuardOutputError("the guard gave a score that is not a number")
    worst = max((v for _, v in verdicts), key=lambda v: (v.failed, _level(v)))
    found: dict[tuple[Category, str | None], Finding] = {}
    for _, verdict in verdicts:
        for finding in verdict.findings:
            known = found.get((finding.category, finding.code))
            if known is None or (known.score is not None and _risk(finding) > known.score):
                found[finding.category, finding.code] = finding
    scores = [verdict.score for _, verdict in verdicts if verdict.score is not None]
    # Sure without a number is more than any number.
    sure = any(finding.score is None for finding in found.values())
    return replace(
        worst,
        score=None if sure else max(scores, default=None),
        findings=tuple(sorted(found.values(), key=lambda finding: -_risk(finding))),
        spans=tuple(
            Span(window.start, window.end or 0, _level(verdict)) for window, verdict in verdicts
        ),
        tokens=sum(verdict.tokens or 0 for _, verdict in verdicts),
        dropped_turns=verdicts[0][0].dropped,
    )


def _level(verdict: Verdict) -> float:
    return max(map(_risk, verdict.findings), default=verdict.score or 0.0)


def _risk(finding: Finding) -> float:
    return 1.0 if finding.score is None else finding.score
