"""Scores texts of any length and language mix with the hybrid model.

A passage is normalised and, when long, cut into overlapping windows, wide and near ones. Every
window is scored on its own; the passage's score for a category is that of its riskiest window.
Windows of all passages share batches. Windows seen before are remembered, so checking a growing
answer again and again costs only its new end.

In what a tool brings back, an attack is an order to the agent that reads it. There the attack score
of the windows counts together with what the order model says of every line; alone it only counts
where it is sure.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from langchain_safeguard.embedded.labels import ATTACKS, CATEGORIES
from langchain_safeguard.embedded.normalize import normalize
from langchain_safeguard.embedded.orders import stretches
from langchain_safeguard.embedded.passages import Passage, PassageScores, WindowScore
from langchain_safeguard.embedded.windows import Window, sentences, windows

if TYPE_CHECKING:
    from langchain_safeguard.embedded.engine import WindowEngine

WHOLE_TOKENS = 288
"""A text up to this long is one window: two overlapping ones would cost nearly twice as much."""
WINDOW_TOKENS, OVERLAP_TOKENS = 224, 56
"""Wide windows of a longer text: what needs its surroundings to be understood."""
NEAR_TOKENS, NEAR_OVERLAP = 32, 14
"""Near windows of a longer text: a stretch that a wide window would dilute."""
NEAR_CAUTION = 0.9
"""Logit that a near window's scores are lowered by: a long text has hundreds of them."""
SENTENCE_LEAST, SENTENCE_MOST = 4, 64
"""Tokens of the sentences of a longer text that are judged one by one, too."""
SENTENCE_CAUTION = 2.0
"""Logit that a lone sentence's scores are lowered by: it may mean little where it stands."""
ATTACK_CAUTION = 2.5
"""Logit that attack scores of a longer text are lowered by: its links and commands look like them.

On harmless long texts this took three quarters of the false alarms away, and on long documents with
an injection 3 of 100 finds.
"""
RESULT_CAUTION = 2.5
"""Logit that windows' attack scores are lowered by in a tool's result: requests look like them."""
ATTACK_WEIGHT, ORDER_CAUTION = 0.5, 1.15
"""Such a line's attack logit: what the windows say, weighed, and the order model, lowered.

Chosen so that no more harmless READMEs, pages and documents raise an alarm than by windows alone.
"""
PROMPT_CHARACTERS = 1200
"""Of a longer prompt the end is kept: it is what the answer answers."""

_MEMORY = 2048
"""Windows whose scores are remembered."""

_ATTACKS = np.array([name in ATTACKS for name in CATEGORIES])

Scores = NDArray[np.float32]
WindowKey = tuple[str, str | None]
"""Text of a window and the end of the prompt it answers: all that its scores depend on."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A passage in windows: their keys and places, the caution with each, and the token count.

    `lines` are what the order model judges, `said` their texts; only tools' results have them.
    """

    keys: list[WindowKey]
    places: list[Window]
    cautions: list[float]
    tokens: int
    lines: list[Window] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


class EmbeddedClassifier:
    """The embedded guard's classifier. Safe to share between threads.

    Attributes:
        categories: Names it reports, in the order of their columns.
        revision: First 12 hexadecimal digits of the weights' sha256.
    """

    categories: tuple[str, ...] = CATEGORIES

    def __init__(self, engine: WindowEngine) -> None:
        self._engine = engine
        self.revision: str = engine.revision
        self._lock = threading.Lock()
        self._memory: OrderedDict[WindowKey, Scores] = OrderedDict()

    @classmethod
    def load(cls, folder: str | Path | None = None) -> EmbeddedClassifier:
        """Load weights and tokenizers from `folder`, or those in the package.

        Raises:
            GuardLoadError: A file is missing, cut short or altered.
        """
        # Here, not above: importing the package must not import torch.
        from langchain_safeguard.embedded.engine import WindowEngine

        place = Path(folder) if folder is not None else Path(__file__).parent / "weights"
        return cls(WindowEngine.load(place))

    def score(self, passages: Sequence[Passage]) -> list[PassageScores]:
        """Judge passages, all their windows together. Nothing is cut off, whatever the length."""
        cuts = [self._cut(passage) for passage in passages]
        wanted = dict.fromkeys(key for cut in cuts for key in cut.keys)
        found = self._remembered(wanted)
        missing = [key for key in wanted if key not in found]
        if missing:
            fresh = self._engine.score(missing)
            found |= dict(zip(missing, fresh, strict=True))
            self._remember(missing, fresh)
        return [self._summary([found[key] for key in cut.keys], cut) for cut in cuts]

    def _cut(self, passage: Passage) -> Cut:
        text = normalize(passage.text)
        if not text.strip():
            return Cut([], [], [], 0)
        prompt = None
        if passage.side == "output" and passage.prompt is not None:
            # Normalising only shortens what matters here; a huge prompt need not be read whole.
            prompt = normalize(passage.prompt[-2 * PROMPT_CHARACTERS :])[-PROMPT_CHARACTERS:]
        elif passage.side == "output":
            prompt = ""
        offsets = self._engine.offsets(text)
        if len(offsets) <= WHOLE_TOKENS:
            cautious = [(place, 0.0) for place in windows(offsets, len(text), WHOLE_TOKENS, 0)]
        else:
            wide = windows(offsets, len(text), WINDOW_TOKENS, OVERLAP_TOKENS)
            near = windows(offsets, len(text), NEAR_TOKENS, NEAR_OVERLAP)
            alone = sentences(text, offsets, SENTENCE_LEAST, SENTENCE_MOST)
            cautious = [
                *((place, 0.0) for place in wide),
                *((place, NEAR_CAUTION) for place in near),
                *((place, SENTENCE_CAUTION) for place in alone),
            ]
            cautious.sort(key=lambda item: (item[0].start, item[0].end))
        places = [place for place, _ in cautious]
        keys = [(text[place.start : place.end], prompt) for place in places]
        lines = stretches(text, offsets) if passage.side == "tool_output" else []
        said = [text[line.start : line.end] for line in lines]
        return Cut(keys, places, [caution for _, caution in cautious], len(offsets), lines, said)

    def _summary(self, rows: Sequence[Scores], cut: Cut) -> PassageScores:
        if not rows:
            return PassageScores(dict.fromkeys(CATEGORIES, 0.0), (), cut.tokens)
        table = np.stack(rows)
        if len(rows) > 1:
            table = _lowered(table, np.array(cut.cautions)[:, None] + _ATTACKS * ATTACK_CAUTION)
        if cut.lines:
            table = np.concatenate([table, self._ordered(table, cut.said)])
        categories = dict(zip(CATEGORIES, table.max(0).tolist(), strict=True))
        scored = [
            WindowScore(place.start, place.end, score)
            for place, score in zip([*cut.places, *cut.lines], table.max(1).tolist(), strict=True)
        ]
        scored.sort(key=lambda window: (window.start, window.end))
        return PassageScores(categories, tuple(scored), cut.tokens)

    def _ordered(self, table: Scores, lines: Sequence[str]) -> Scores:
        """Scores of a tool result's lines; those of attacks in `table`, its windows', go down."""
        attack = float(table[:, _ATTACKS].max().clip(1e-6, 1.0 - 1e-6))
        table[:, _ATTACKS] = _lowered(table[:, _ATTACKS], np.array(RESULT_CAUTION))
        evidence = ATTACK_WEIGHT * np.log(attack / (1.0 - attack))
        logits = evidence + self._engine.orders(lines) - ORDER_CAUTION
        scores = np.zeros((len(lines), len(CATEGORIES)), dtype=np.float32)
        scores[:, CATEGORIES.index("prompt_injection")] = 1.0 / (1.0 + np.exp(-logits))
        return scores

    def _remembered(self, keys: dict[WindowKey, None]) -> dict[WindowKey, Scores]:
        with self._lock:
            found = {key: self._memory[key] for key in keys if key in self._memory}
            for key in found:
                self._memory.move_to_end(key)
        return found

    def _remember(self, keys: Sequence[WindowKey], rows: Scores) -> None:
        with self._lock:
            for key, row in zip(keys, rows, strict=True):
                self._memory[key] = row
            while len(self._memory) > _MEMORY:
                self._memory.popitem(last=False)


def _lowered(scores: Scores, logits: NDArray[np.float64]) -> Scores:
    """Lower probabilities by `logits` on the logit scale; both of shape (windows, categories)."""
    odds = scores * np.exp(-logits)
    return (odds / (odds + (1.0 - scores))).astype(np.float32)
