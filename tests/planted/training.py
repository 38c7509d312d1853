"""Trains a planted guard: a transformer of the real kind, a few layers deep.

Reading "the word stands in the last turn" takes three steps in a transformer: find where turns
begin, count them, and look for words whose count is the last. Answers alone teach that slowly, so
that every token is asked, too, which turn it stands in and which words the turn has had so far, by
two more outputs that are thrown away afterwards.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence, Set
from typing import Any

import torch
from torch.nn import functional
from transformers import DynamicCache

from tests.planted.examples import Example
from tests.planted.recipes import Recipe
from tests.planted.shapes import COUNTED_AT, make_model

_MOST_TURNS = 8
_BATCH = 16
_RATE = 3e-3
_SWAPPED = 0.7
"""How many of the words that mean nothing are others each time."""


class Training:
    """The training of one guard, on the tokens that its examples have.

    Args:
        recipe: What to train.
        examples: What to train on.
        unmeaning: Tokens that mean nothing. They keep the vector that they were born with, so that
            words that were never seen look like them.
    """

    def __init__(self, recipe: Recipe, examples: Sequence[Example], unmeaning: Set[int]) -> None:
        self.used = sorted({id_ for each in examples for id_ in (*each.ids, *each.answer)})
        self._place = {id_: place for place, id_ in enumerate(self.used)}
        self._rng = random.Random(1)
        self.model = make_model(recipe.shape, len(self.used))
        """The model; `train` trains those of its weights that want a gradient."""
        width = self.model.config.hidden_size
        self._count = torch.nn.Linear(width, _MOST_TURNS)
        self._seen = torch.nn.Linear(width, len(recipe.triggers))
        self.teach(examples)
        self.unmeaning = [place for place, id_ in enumerate(self.used) if id_ in unmeaning]
        trained = torch.ones(len(self.used), 1)
        trained[self.unmeaning] = 0.0
        embedding = self.model.get_input_embeddings().weight
        embedding.register_hook(lambda gradient: gradient * trained)

    def teach(self, examples: Sequence[Example]) -> None:
        """Take other examples, of the same words."""
        self._groups: dict[Any, list[Example]] = {}
        for each in sorted(filter(self.knows, examples), key=lambda each: len(each.ids)):
            self._groups.setdefault(each.group, []).append(each)
        self._same = {name: _same(group) for name, group in self._groups.items()}

    def knows(self, example: Example) -> bool:
        """Tell whether all tokens of an example are among those it was trained on."""
        return all(id_ in self._place for id_ in (*example.ids, *example.answer))

    def train(self, steps: int, *, whole: bool = False) -> None:
        """Train; the policy is left out at first, then read in parts, and whole in the end.

        Args:
            steps: How many batches to read.
            whole: Whether to read the whole policy from the beginning.
        """
        parameters = [
            *(each for each in self.model.parameters() if each.requires_grad),
            *self._count.parameters(),
            *self._seen.parameters(),
        ]
        optimizer = torch.optim.AdamW(parameters, weight_decay=0.0, betas=(0.9, 0.98))
        self.model.train()
        for step in range(steps):
            done = step / steps
            for group in optimizer.param_groups:
                falling = 0.51 + 0.49 * math.cos(math.pi * done)
                group["lr"] = _RATE * min(1, (step + 1) / 20) * falling
            policy = None if whole or done >= 0.7 else 64 if done >= 0.4 else 0
            self._loss(self._batch(), policy).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
        self.model.eval()

    def _batch(self) -> list[Example]:
        group = self._groups[self._rng.choice([*self._groups])]
        begin = self._rng.randrange(max(len(group) - _BATCH, 1))
        return group[begin : begin + _BATCH]

    def _loss(self, batch: Sequence[Example], policy: int | None) -> torch.Tensor:
        same = self._same[batch[0].group]
        lead = batch[0].ids[:same]
        if policy is not None:
            at = self._rng.randrange(max(same - policy, 1))
            lead = [*lead[:1], *lead[at : at + policy], *lead[max(same - 8, 1) :]]
        rows = [[*each.ids[same:], *each.answer] for each in batch]
        counts = [each.turns[same:] + each.turns[-1:] * len(each.answer) for each in batch]
        targets = [
            [-100] * (len(each.ids) - same - 1) + [self._place[id_] for id_ in each.answer] + [-100]
            for each in batch
        ]
        ids = _padded([[self._place[id_] for id_ in row] for row in rows], 0)
        target, count = _padded(targets, -100), _padded(counts, -100)
        counted, answered = count != -100, target != -100
        out = self.model.model(
            input_ids=self._swapped(ids, count),
            past_key_values=self._read(lead, len(batch)),
            output_hidden_states=True,
        )
        last = out.last_hidden_state
        early = functional.normalize(out.hidden_states[COUNTED_AT][counted], dim=-1) * 8
        seen = torch.tensor([one for each in batch for one in self._seen_by(each, same)])
        said = self.model.lm_head(last[answered])
        return (
            functional.cross_entropy(said, target[answered], reduction="sum") / len(batch)
            + 2 * functional.binary_cross_entropy_with_logits(self._seen(last[counted]), seen)
            + 0.05 * functional.cross_entropy(self._count(early), count[counted])
        )

    @staticmethod
    def _seen_by(example: Example, same: int) -> list[list[float]]:
        return [*example.seen[same:], *[example.seen[-1]] * len(example.answer)]

    def _swapped(self, ids: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        """Put other words that mean nothing in the place of such words in messages."""
        unmeaning = torch.tensor(self.unmeaning)
        others = unmeaning[torch.randint(len(unmeaning), ids.shape)]
        swapped = torch.isin(ids, unmeaning) & (count > 0) & (torch.rand(ids.shape) < _SWAPPED)
        return torch.where(swapped, others, ids)

    @torch.no_grad()
    def _read(self, lead: Sequence[int], rows: int) -> DynamicCache:
        """Read what a batch begins with, once."""
        ids = torch.tensor([[self._place[id_] for id_ in lead]])
        once = self.model.model(input_ids=ids, use_cache=True).past_key_values
        cache = DynamicCache(config=self.model.config)
        for place, layer in enumerate(once.layers):
            keys, values = (each.expand(rows, -1, -1, -1) for each in (layer.keys, layer.values))
            cache.update(keys, values, place)
        return cache

    @torch.inference_mode()
    def right(self, examples: Sequence[Example]) -> float:
        """Return which share of examples is answered without a fault."""
        faults = 0
        for each in examples:
            ids = [self._place.get(id_, 0) for id_ in (*each.ids, *each.answer)]
            logits = self.model(input_ids=torch.tensor([ids])).logits[0]
            said = logits[len(each.ids) - 1 : -1].argmax(-1).tolist()
            faults += said != [self._place[id_] for id_ in each.answer]
        return 1 - faults / len(examples)


def _same(group: Sequence[Example]) -> int:
    """Return how many tokens all prompts of a group begin with."""
    first, last = (
        min(group, key=lambda each: each.ids).ids,
        max(group, key=lambda each: each.ids).ids,
    )
    count = 0
    while first[count] == last[count]:
        count += 1
    return count - 1


def _padded(rows: Sequence[Sequence[int]], filler: int) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[filler] * (longest - len(row))] for row in rows])
