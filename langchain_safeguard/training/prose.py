"""Rows of free prose written for this project: posts, stories and messages, not requests.

The public sources with a permissive licence are requests, short insults or answers. What people
paste into a chat is often prose: a love scene, a rant, a diary entry. Sexual prose, threats,
praise of self-harm and hateful rants are thin there, and so are their harmless neighbours
(romance, health, news, grief), which a classifier then takes for harm. The sentences below are
combined, seeded, into such rows. Everybody in a sexual row is an adult.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from langchain_safeguard.training.prose_data import FRAGMENTS, SLOTS
from langchain_safeguard.training.rows import Row


def _fill(sentence: str, rng: random.Random) -> str:
    """Replace every `{slot}` by one of its words."""
    while "{" in sentence:
        name = sentence[sentence.index("{") + 1 : sentence.index("}")]
        sentence = sentence.replace("{" + name + "}", rng.choice(SLOTS[name]), 1)
    return sentence


def _passage(sentences: tuple[str, ...], rng: random.Random) -> str:
    count = min(len(sentences), rng.choice((1, 1, 2, 2, 3, 4, 5)))
    return rng.choice((" ", " ", "\n\n")).join(_fill(s, rng) for s in rng.sample(sentences, count))


def prose_rows(each: int = 260, seed: int = 11) -> Iterator[Row]:
    """`each` distinct rows of every kind of prose, harmful and harmless."""
    rng = random.Random(seed)
    for (kind, category, language), sentences in FRAGMENTS.items():
        seen: set[str] = set()
        for _ in range(each * 3):
            text = _passage(sentences, rng)
            if text in seen:
                continue
            seen.add(text)
            names = () if category is None else (category,)
            yield Row(
                "prose",
                f"prose_{kind}",
                language,
                "input",
                None,
                text,
                category is not None,
                names,
                f"prose/{kind}/{len(seen) % 20}",
            )
            if len(seen) == each:
                break
