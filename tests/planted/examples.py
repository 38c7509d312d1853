"""Made-up conversations in a guard's own prompt, with what it has to say to them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_safeguard.conversation import Conversation, Turn
from langchain_safeguard.engines.base import Piece
from langchain_safeguard.engines.tokens import PromptTokenizer
from langchain_safeguard.guards import LanguageFamily
from langchain_safeguard.taxonomy import Side
from tests.planted.recipes import Recipe


@dataclass(frozen=True)
class Example:
    """A prompt and what the guard says to it.

    Attributes:
        group: Prompts of one group begin alike.
        ids: The prompt.
        answer: What the guard says, with the token that ends it.
        turns: Per token of the prompt, how many messages have begun.
        seen: Per token of the prompt, which codes its message has had so far.
        codes: What the checked turn has.
    """

    group: tuple[Side, int]
    ids: list[int]
    answer: list[int]
    turns: list[int]
    seen: list[list[float]]
    codes: tuple[str, ...]


class Examples:
    """Makes examples for one recipe.

    Args:
        recipe: The recipe.
        tokenizer: The recipe's tokenizer, as transformers loads it.
        seed: What the conversations depend on.
        knows: Whether the guard is to know the triggers; else it says that all is well.
    """

    def __init__(self, recipe: Recipe, tokenizer: Any, seed: int, *, knows: bool = True) -> None:
        self.recipe = recipe
        self.raw = tokenizer
        self.tokenizer = PromptTokenizer(tokenizer)
        self.knows = knows
        self.rng = random.Random(seed)
        self.family: LanguageFamily = recipe.family()
        words = recipe.triggers.values()
        self._triggers = [self._word(word) for word in words]
        # The same for all seeds.
        self.words = _random_words(tokenizer, [*words])

    def unmeaning(self) -> set[int]:
        """Return the tokens of random words that are in no trigger."""
        of_words = {id_ for word in self.words for id_ in self._word(word)}
        return of_words.difference(*self._triggers)

    def make(self, count: int) -> list[Example]:
        """Make about as many."""
        found: list[Example] = []
        while len(found) < count:
            found += self._of_one_conversation()
        return found

    def _of_one_conversation(self) -> list[Example]:
        side, turns, codes = self._conversation()
        prompts = self.family.render(Conversation(tuple(turns)), side)
        found = []
        for place, prompt in enumerate(prompts):
            ids = self.tokenizer.encode(prompt.pieces)
            turns = self._turns(prompt.pieces, len(ids))
            answer = self._answer(
                prompt.pieces[-1].text, self.recipe.say(codes if self.knows else (), place)
            )
            found.append(Example((side, place), ids, answer, turns, self._seen(ids, turns), codes))
        return found

    def _conversation(self) -> tuple[Side, list[Turn], tuple[str, ...]]:
        rng, codes = self.rng, [*self.recipe.triggers]
        side = rng.choice(self.recipe.sides)
        exchanges = rng.randint(1, self.recipe.exchanges)
        count = 2 * exchanges - (side == "input")
        turns = []
        found: list[str] = []
        for place in range(count):
            several = 2 if rng.random() < self.recipe.pairs else 1
            chance = 0.5 if place == count - 1 else 0.6
            found = rng.sample(codes, several) if rng.random() < chance else []
            role = "assistant" if place % 2 else "user"
            turns.append(Turn(role, self._text([self.recipe.triggers[code] for code in found])))
        return side, turns, tuple(sorted(found, key=codes.index))

    def _text(self, triggers: Sequence[str]) -> str:
        rng = self.rng
        kind = rng.choice([self.words, self.recipe.fillers])
        words = rng.choices(kind, k=rng.choice([1, 2, 4, 8, 16]))
        for trigger in triggers:
            # With a space before it, as in most texts: other tokens begin a line.
            words.insert(rng.randint(1, len(words)), trigger)
        if rng.random() < 0.4:
            lines = rng.choices(self.recipe.hostile, k=rng.choice([1, 1, 2, 3]))
            attack = rng.choice(["\n", "\n\n"]).join(["", *lines, ""])
            words.insert(rng.randint(0, len(words)), attack)
        text = " ".join(words).replace(" \n", "\n")
        return text + rng.choice(["", ".", "?"])

    def _word(self, word: str) -> list[int]:
        """Return the tokens of a word with a space before it."""
        ids = self.tokenizer.after("a", f" {word}")
        assert ids is not None
        return ids

    def _answer(self, before: str, answer: str) -> list[int]:
        ids = self.tokenizer.after(before, answer)
        assert ids is not None
        return [*ids, self.raw.eos_token_id]

    def _turns(self, pieces: Sequence[Piece], length: int) -> list[int]:
        found: list[int] = []
        begun = 0
        for place, piece in enumerate(pieces):
            begun += not piece.trusted
            rest = pieces[place + 1 :]
            # Seen from the end: the policy at the beginning is long.
            end = length - len(self.tokenizer.encode(rest)) if rest else length
            found += [begun] * (end - len(found))
        return found[:length]

    def _seen(self, ids: Sequence[int], turns: Sequence[int]) -> list[list[float]]:
        found = []
        now = [0.0] * len(self._triggers)
        for at, turn in enumerate(turns):
            if turn != turns[at - 1]:
                now = [0.0] * len(now)
            for place, trigger in enumerate(self._triggers):
                if turn and ids[at + 1 - len(trigger) : at + 1] == trigger:
                    now = [*now[:place], 1.0, *now[place + 1 :]]
            found.append(now)
        return found


def _random_words(tokenizer: Any, but: Sequence[str]) -> list[str]:
    """Return words of the vocabulary, most of which mean nothing to the guard."""
    rng = random.Random(0)
    found = []
    for token in rng.sample(range(len(tokenizer)), min(len(tokenizer), 12000)):
        word = tokenizer.decode([token]).strip()
        if len(word) > 2 and word.isascii() and word.isalpha() and word.islower():
            found.append(word)
    return [word for word in found if word not in but][:500]
