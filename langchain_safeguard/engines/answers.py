"""Where in a forced answer which logits are read, worked out once per prompt ending and answer."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from langchain_safeguard.engines.base import Reading
from langchain_safeguard.engines.tokens import PromptTokenizer
from langchain_safeguard.errors import GuardLoadError

Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Fork:
    """A point at which labels part.

    Attributes:
        path: The tokens of the answer up to here.
        options: Per choice its tokens and where it leads: to a label, or to the next fork.
    """

    path: Tokens
    options: tuple[tuple[Tokens, str | Fork], ...]

    @property
    def choices(self) -> Tokens:
        """Return the tokens of all options."""
        return tuple(token for tokens, _ in self.options for token in tokens)

    def all(self) -> list[Fork]:
        """Return this fork and those behind it."""
        behind = [fork for _, lead in self.options if isinstance(lead, Fork) for fork in lead.all()]
        return [self, *behind]

    def probabilities(self, found_at: Mapping[Fork, Sequence[float]]) -> dict[str, float]:
        """Return the probability of each label.

        Args:
            found_at: Per fork the probabilities of its choices.
        """
        found: dict[str, float] = {}
        rest = iter(found_at[self])
        for tokens, lead in self.options:
            here = sum(next(rest) for _ in tokens)
            if isinstance(lead, str):
                found[lead] = found.get(lead, 0.0) + here
                continue
            for label, probability in lead.probabilities(found_at).items():
                found[label] = found.get(label, 0.0) + here * probability
        return found


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of an answer that takes one pass.

    Attributes:
        forced: All that is forced, as tokens after the prompt.
        readings: The forks by the names of their readings.
        text: All that is forced, as a text.
    """

    forced: Tokens
    readings: tuple[tuple[str, Fork], ...]
    text: str

    @property
    def forks(self) -> list[Fork]:
        """Return all forks at which probabilities are read."""
        return [part for _, fork in self.readings for part in fork.all()]


def plan(tokenizer: PromptTokenizer, before: str, answer: Sequence[str | Reading]) -> Stage:
    """Work out a part of an answer.

    Args:
        tokenizer: The model's.
        before: The trusted text in front of it.
        answer: Forced texts and readings.

    Raises:
        GuardLoadError: The vocabulary cannot tell the choices apart, or has no tokens for a text.
    """
    path: Tokens = ()
    said = ""
    readings = []
    for part in answer:
        if isinstance(part, Reading):
            readings.append((part.name, _fork(tokenizer, before + said, path, part)))
            continue
        ids = tokenizer.after(before + said, part)
        if ids is None:
            raise GuardLoadError(f"the tokenizer has no tokens of its own for {part!r}")
        path += tuple(ids)
        said += part
    return Stage(path, tuple(readings), said)


def _fork(tokenizer: PromptTokenizer, before: str, path: Tokens, reading: Reading) -> Fork:
    ends: list[tuple[Tokens, str]] = []
    for label, spellings in reading.choices.items():
        found = [tokenizer.after(before, spelling) for spelling in spellings]
        if not any(found):
            raise GuardLoadError(
                f"the tokenizer has no tokens for {label!r} (spelled {', '.join(spellings)}); "
                "is this the model of the guard?"
            )
        ends += [(tuple(ids), label) for ids in found if ids]
    return _parting(path, ends, tuple(sorted(tokenizer.eos)), tokenizer)


def _parting(
    path: Tokens, ends: Sequence[tuple[Tokens, str]], eos: Tokens, tokenizer: PromptTokenizer
) -> Fork:
    by_first: dict[int | None, list[tuple[Tokens, str]]] = {}
    for tokens, label in ends:
        by_first.setdefault(tokens[0] if tokens else None, []).append((tokens[1:], label))
    if len(by_first) == 1:
        [(first, rest)] = by_first.items()
        if first is None or len({label for _, label in rest}) == 1:
            raise _twins({label for _, label in rest})
        return _parting((*path, first), rest, eos, tokenizer)
    options: list[tuple[Tokens, str | Fork]] = []
    for first, rest in by_first.items():
        labels = {label for _, label in rest}
        if first is None:
            if len(labels) > 1:
                raise _twins(labels)
            # A label that begins another one: it ends here, or a list goes on.
            comma = tokenizer.after("1", ",") or []
            options.append(((*eos, *comma), next(iter(labels))))
        elif len(labels) == 1:
            options.append(((first,), next(iter(labels))))
        else:
            options.append(((first,), _parting((*path, first), rest, eos, tokenizer)))
    return Fork(path, tuple(options))


def _twins(labels: Collection[str]) -> GuardLoadError:
    names = " and ".join(sorted(labels))
    return GuardLoadError(f"the tokenizer cannot tell {names} apart")
