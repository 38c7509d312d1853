"""Rows written for this project, combined from sentences and words, seeded: prose and pairs.

Prose: what people paste into a chat is often a love scene, a rant, a diary entry. The public
sources with a permissive licence are requests, short insults or answers; sexual prose, threats,
praise of self-harm and hateful rants are thin there, and so are their harmless neighbours (romance,
health, news, grief), which a classifier then takes for harm. Everybody in a sexual row is an adult.

Pairs: single requests that share their words and differ in intent.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources

from langchain_safeguard.training.rows import Row

Words = Mapping[str, Sequence[str]]


def fill(sentence: str, words: Words, rng: random.Random) -> str:
    """Replace every `{slot}` by one of its words."""
    while "{" in sentence:
        name = sentence[sentence.index("{") + 1 : sentence.index("}")]
        sentence = sentence.replace("{" + name + "}", rng.choice(words[name]), 1)
    return sentence


def _passage(sentences: Sequence[str], words: Words, rng: random.Random) -> str:
    count = min(len(sentences), rng.choice((1, 1, 2, 2, 3, 4, 5)))
    parts = [fill(sentence, words, rng) for sentence in rng.sample(sentences, count)]
    return rng.choice((" ", " ", "\n\n")).join(parts)


def _request(sentences: Sequence[str], words: Words, rng: random.Random) -> str:
    text = fill(rng.choice(sentences), words, rng)
    return text.lower().rstrip("?.") if rng.random() < 0.2 else text


def _rows(file: str, each: int, seed: int) -> Iterator[Row]:
    """Rows from `FILE.json` beside this module: its words, and sentences of every kind."""
    place = resources.files("langchain_safeguard.training") / f"{file}.json"
    given = json.loads(place.read_text(encoding="utf-8"))
    rng = random.Random(seed)
    write = _passage if file == "prose" else _request
    for entry in given["kinds"]:
        kind, category = entry["kind"], entry["category"]
        seen: set[str] = set()
        for _ in range(each * 3):
            text = write(entry["sentences"], given["words"], rng)
            if text in seen:
                continue
            seen.add(text)
            yield Row(
                file=file,
                source=f"{file}_{kind}",
                language=entry["language"],
                side="input",
                prompt=None,
                text=text,
                unsafe=category is not None,
                categories=() if category is None else (category,),
                group=f"{file}/{kind}/{len(seen) % 20}",
            )
            if len(seen) == each:
                break


def prose_rows(each: int = 260, seed: int = 11) -> Iterator[Row]:
    """`each` distinct rows of every kind of prose, harmful and harmless."""
    return _rows("prose", each, seed)


def pair_rows(each: int = 240, seed: int = 12) -> Iterator[Row]:
    """`each` distinct rows, where there are as many, of every kind of pair."""
    return _rows("pairs", each, seed)
