"""Probabilities from listed log-probabilities, with honest bounds for what is not listed."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from langchain_safeguard.engines.answers import Fork
from langchain_safeguard.errors import GuardOutputError

Bounds = tuple[float, float]

_WIDEST = 0.02
"""How far apart the bounds of a probability may be; its middle is half of that off at most."""
_NOTHING = -9000.0
"""What vLLM writes for minus infinity is below."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The tokens that a server lists for the next place.

    Attributes:
        entries: Per entry the tokens that it may stand for (one, where it is named by its id) and
            its log-probability.
        complete: Whether the tokens asked for are all in it; else it is a list of the likeliest.
    """

    entries: tuple[tuple[frozenset[int], float], ...]
    complete: bool

    def __post_init__(self) -> None:
        """Make sure that these can be probabilities.

        Raises:
            GuardOutputError: They cannot.
        """
        # Rounding may leave a little more than certainty.
        if not all(math.isfinite(value) and value < 0.01 for _, value in self.entries) or (
            not self.complete and not 0 < self._total() < 1.01
        ):
            raise GuardOutputError("the server's log-probabilities are none")

    def _total(self) -> float:
        return sum(math.exp(value) for _, value in self.entries)

    def masses(self, options: Sequence[Collection[int]]) -> list[Bounds]:
        """Return, within bounds, how much probability each of several sets of tokens has.

        Where the list is complete, in parts of the likeliest one's.

        Raises:
            GuardOutputError: None has any.
        """
        if self.complete:
            return self._exact(options)
        # Rounding can take all of it.
        rest = max(1 - self._total(), 1e-6)
        # What is not listed is no likelier than the least likely token that is.
        unlisted = min(min(math.exp(value) for _, value in self.entries), rest)
        seen = frozenset().union(*(tokens for tokens, _ in self.entries))
        found = []
        for option in map(frozenset, options):
            sure = maybe = hidden = 0.0
            for tokens, value in self.entries:
                if tokens <= option:
                    sure += math.exp(value)
                elif tokens & option:
                    maybe += math.exp(value)
                if len(tokens) > 1 and tokens & option:
                    # Another token of that name may be hidden behind this one.
                    hidden = rest
            more = hidden + unlisted * len(option - seen)
            found.append((sure, sure + maybe + min(more, rest)))
        return found

    def _exact(self, options: Sequence[Collection[int]]) -> list[Bounds]:
        by_id = {id_: value for tokens, value in self.entries for id_ in tokens}
        wanted = [[by_id[id_] for id_ in option] for option in options]
        known = [value for option in wanted for value in option]
        most = max(known)
        if most < _NOTHING:
            raise GuardOutputError("the server gives none of the words of the answer a chance")
        found = []
        for option in wanted:
            mass = sum(math.exp(value - most) for value in option)
            found.append((mass, mass))
        return found


def decided(fork: Fork, listings: Mapping[Fork, Listing]) -> dict[str, float]:
    """Return the probability of each label.

    Raises:
        GuardOutputError: What is not listed could make too great a difference.
    """
    found = _labels(fork, listings)
    if any(high - low > _WIDEST for low, high in found.values()):
        raise GuardOutputError(
            "the words of the answer are not among the likeliest tokens that the server lists, or "
            "it calls other tokens the same"
        )
    middles = {label: (low + high) / 2 for label, (low, high) in found.items()}
    total = sum(middles.values())
    return {label: middle / total for label, middle in middles.items()}


def grouped(fork: Fork) -> tuple[list[str | Fork], list[Collection[int]]]:
    """Return where a fork leads, and all tokens that lead there.

    Spellings of one label are taken together: a server may call them by the same name.
    """
    found: dict[str | Fork, list[int]] = {}
    for tokens, lead in fork.options:
        found.setdefault(lead, []).extend(tokens)
    return [*found], [*found.values()]


def _labels(fork: Fork, listings: Mapping[Fork, Listing]) -> dict[str, Bounds]:
    leads, options = grouped(fork)
    masses = listings[fork].masses(options)
    lowest, highest = (sum(column) for column in zip(*masses, strict=True))
    found: dict[str, Bounds] = {}
    for (low, high), lead in zip(masses, leads, strict=True):
        least = _part(low, highest - high)
        most = _part(high, lowest - low)
        inner = {lead: (1.0, 1.0)} if isinstance(lead, str) else _labels(lead, listings)
        for label, (inner_low, inner_high) in inner.items():
            before = found.get(label, (0.0, 0.0))
            found[label] = (
                before[0] + least * inner_low,
                min(before[1] + most * inner_high, 1.0),
            )
    return found


def _part(one: float, others: float) -> float:
    """Return which part of both together the first is; none, or all, if there are no others."""
    others = max(others, 0.0)
    return one / (one + others) if one > 0 else 0.0
