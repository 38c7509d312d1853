"""Fitting the order model: which lines of a tool's result give orders to whoever reads it.

It learns from the results written for this project, cut into lines as the guard cuts them, from
short injections among the rows, and from lines of harmless rows.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.preprocessing import normalize as unit_length
from tokenizers import Tokenizer
from torch import Tensor

from langchain_safeguard.embedded.batches import Example, length_batches, word_batch
from langchain_safeguard.embedded.branches import WordBranch
from langchain_safeguard.embedded.engine import is_latin
from langchain_safeguard.embedded.normalize import normalize
from langchain_safeguard.embedded.orders import stretches
from langchain_safeguard.training.encode import ids_of
from langchain_safeguard.training.grams import counted
from langchain_safeguard.training.results import Result, results
from langchain_safeguard.training.rows import Row

BITS = 18
RESULTS = 8000

_PROSE = {
    "doc_clean": 250,
    "gpteacher_responses": 400,
    "caia_safety_responses": 200,
    "long_and_injection": 1200,
    "answers": 300,
    "ko_contrast": 600,
    "ko_chatbot_responses": 100,
}
"""Rows of a file whose harmless ones are like what tools bring back."""
_SAID = {"ko_chatbot": 200, "ko_question_pair": 100, "deepset": 250, "gsm8k": 80, "square": 60}
"""Rows of a file whose harmless ones are like what people say in chats."""
_INJECTIONS = {"deepset", "long_and_injection", "ko_contrast", "bipia_train", "pairs"}
_SHORT = 220
"""Characters of an injection that is one from its first to its last word."""
_LINES_OF_A_ROW = 12
_INSIDE, _OF_ORDER = 0.8, 0.6
"""Share of a stretch that is order, or of an order that is in it, from which it counts as one."""
_TOKENS = 128
"""Most WordPieces of a line that the word branch reads in training."""
_HARD, _OTHERS = 5000, 7000
"""Harmless lines it learns from: those most like orders to the n-grams, and any others."""
_BREAK = re.compile(r"(?<=[.!?])\s+|\n")


def fit_orders(
    rows: Sequence[Row], pieces: Tokenizer, branch: WordBranch, words: Tokenizer, seed: int = 7
) -> dict[str, Tensor]:
    """Fit on training rows.

    Args:
        rows: The training rows.
        pieces: Tokenizer by which texts are cut into lines.
        branch: The word branch, fitted before.
        words: Its tokenizer.
        seed: Of everything random.

    Returns:
        `grams` (2 ** BITS,) in half precision, `words` (features,), and `grams_bias`, `words_bias`.
    """
    rng = random.Random(seed)
    examples = list(_examples(rows, pieces, rng))
    texts = [text for text, _ in examples]
    truth = np.array([is_order for _, is_order in examples])
    matrix = unit_length(counted([(text, None) for text in texts], BITS), copy=False)
    model = LogisticRegression(C=5.0, max_iter=60).fit(matrix, truth)
    doubtful = _doubtful(truth, model.decision_function(matrix), rng)
    chosen = [index for index in doubtful if is_latin(texts[index])]
    found = features([texts[index] for index in chosen], branch, words)
    scaler = StandardScaler().fit(found)
    reader = LogisticRegression(C=0.001, max_iter=300).fit(scaler.transform(found), truth[chosen])
    weight = reader.coef_[0] / scaler.scale_
    return {
        "grams": torch.from_numpy(model.coef_[0].astype(np.float16)),
        "grams_bias": torch.tensor(float(model.intercept_[0])),
        "words": torch.from_numpy(weight.astype(np.float32)),
        "words_bias": torch.tensor(float(reader.intercept_[0] - weight @ scaler.mean_)),
    }


@torch.inference_mode()
def features(texts: Sequence[str], branch: WordBranch, words: Tokenizer) -> NDArray[np.float32]:
    """What the word branch makes of each text: (texts, features)."""
    branch.eval()
    examples: list[Example] = [(ids_of(words, text)[:_TOKENS] or [0], None) for text in texts]
    found = np.zeros((len(texts), branch.hidden.in_features), dtype=np.float32)
    for batch in length_batches(examples, 4096):
        found[batch] = branch.pooled(**word_batch([examples[index] for index in batch])).numpy()
    return found


def _doubtful(
    truth: NDArray[np.bool_], logits: NDArray[np.float64], rng: random.Random
) -> list[int]:
    """Which lines the word branch learns from: orders, what looks most like them, and others."""
    clean = np.flatnonzero(~truth)
    hard = clean[np.argsort(-logits[clean])[:_HARD]]
    others = np.setdiff1d(clean, hard).tolist()
    return [*np.flatnonzero(truth), *hard, *rng.sample(others, min(len(others), _OTHERS))]


def _examples(
    rows: Sequence[Row], pieces: Tokenizer, rng: random.Random
) -> Iterator[tuple[str, bool]]:
    harmless = _harmless(rows, rng)
    for result in results(RESULTS, _lines(harmless), rng.randrange(2**32)):
        yield from _labelled(result, pieces)
    for row in harmless:
        found = [text for text, _ in _labelled(Result(row.text, ""), pieces)]
        for text in rng.sample(found, min(len(found), _LINES_OF_A_ROW)):
            yield text, False
    for row in rows:
        named = row.file in _INJECTIONS and "prompt_injection" in (row.categories or ())
        if named and row.unsafe and row.side == "input" and len(row.text) < _SHORT:
            yield normalize(row.text), True


def _harmless(rows: Sequence[Row], rng: random.Random) -> list[Row]:
    caps = _PROSE | _SAID
    order = [row for row in rows if not row.unsafe and row.file in caps]
    rng.shuffle(order)
    seen: Counter[str] = Counter()
    chosen = []
    for row in order:
        seen[row.file] += 1
        if seen[row.file] <= caps[row.file]:
            chosen.append(row)
    return chosen


def _lines(rows: Sequence[Row]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row.file in _PROSE:
            lines = [line for line in _BREAK.split(row.text) if 15 < len(line) < 160]
            found["ko" if row.korean else "en"] += lines
    return found


def _labelled(result: Result, pieces: Tokenizer) -> Iterator[tuple[str, bool]]:
    """The stretches of a result that hold the order or nothing of it."""
    text, order = normalize(result.text), normalize(result.order)
    start = text.find(order)
    end = start + len(order)
    if start < 0:
        return
    offsets = pieces.encode(text, add_special_tokens=False).offsets
    for place in stretches(text, offsets):
        shared = max(0, min(place.end, end) - max(place.start, start))
        if not shared:
            yield text[place.start : place.end], False
        elif shared >= min(_OF_ORDER * len(order), _INSIDE * (place.end - place.start)):
            yield text[place.start : place.end], True
