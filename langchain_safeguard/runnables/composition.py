"""How `prompt | InputGuard() | llm | OutputGuard()` becomes a guarded chain.

In LangChain, a step can only raise or hand a value on: it cannot skip the steps behind it, nor
silence those before it. So the steps between two guards must be owned by something that can, and it
has to come to be while the chain is written. LangChain gives two occasions:

* `sequence | guard`: `OutputGuard` is a `RunnableSequence` with a `__ror__` of its own. Of two
  operands Python asks the right one first if its type derives from the left one's.
* Any other spelling (`llm | guard`, `.pipe()`, `RunnableSequence(...)`, `a | (b | guard)`) ends in
  the constructor of a plain `RunnableSequence`, which asks every step that is a sequence for its
  `steps`. Ours then make the sequence that is being built a `GuardedSequence`.

Both end in a `GuardedSequence`: a sequence that remembers the steps as they were written, and runs
them with those between guards bundled into `GuardedSteps`.
"""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Sequence
from types import FrameType
from typing import Any, cast

from langchain_core.prompts import BasePromptTemplate
from langchain_core.runnables import (
    Runnable,
    RunnableConfig,
    RunnablePassthrough,
    RunnableSequence,
    RunnableSerializable,
)
from langchain_core.runnables.base import RunnableBindingBase, coerce_to_runnable
from langchain_core.runnables.graph import Graph
from pydantic import PrivateAttr

from langchain_safeguard.errors import ConfigurationError
from langchain_safeguard.runnables.closing import ClosingSequence, joined
from langchain_safeguard.runnables.gate import Gate
from langchain_safeguard.runnables.guarded_steps import GuardedSteps
from langchain_safeguard.runnables.input_guard import InputGuard
from langchain_safeguard.runnables.kinds import is_model

_BUILDERS = {RunnableSequence.__init__.__code__}


class Composable(ClosingSequence):
    """A sequence with guards in it, which takes part in how it is composed."""

    @property
    @abstractmethod
    def written(self) -> list[Runnable[Any, Any]]:
        """Return the steps as they were written."""

    @property
    @abstractmethod
    def planned(self) -> list[Runnable[Any, Any]]:
        """Return the steps as they are run: they may be run one by one, by anyone."""

    @property
    def steps(self) -> list[Runnable[Any, Any]]:
        """Return the steps: as written to a sequence that is being built, else as they are run."""
        sequence = _under_construction()
        if sequence is None:
            return self.planned
        if type(sequence) in (RunnableSequence, ClosingSequence):
            # Both classes have the same layout, and the fields are not set yet.
            object.__setattr__(sequence, "__class__", GuardedSequence)
        elif not isinstance(sequence, GuardedSequence):
            raise ConfigurationError(
                f"a {type(sequence).__name__} cannot hold an OutputGuard; use guarded(...)"
            )
        return self.written

    def __or__(self, other: Any) -> GuardedSequence:
        """Put steps behind."""
        return GuardedSequence(*self.written, *written(other), name=self.name)

    def __ror__(self, other: Any) -> GuardedSequence:
        """Put steps in front, and find the guards they belong to."""
        return GuardedSequence(*written(other), *self.written, name=getattr(other, "name", None))


def _under_construction() -> Any:
    """Return the sequence whose constructor asks for our steps, if it is one that asks."""
    # 0 is this function and 1 is `steps`; the constructor may ask from inside a comprehension.
    frame: FrameType | None = sys._getframe(2)
    for _ in range(3):
        if frame is None:
            return None
        if frame.f_code in _BUILDERS:
            return frame.f_locals["self"]
        frame = frame.f_back
    return None


class _Bundling(RunnableSerializable[Any, Any]):
    """Comes behind `RunnableSequence` in the order of base classes, so its constructor calls ours.

    That is where we get to work in a sequence that becomes guarded while it is being built. (After
    validation by pydantic, that is, which would make our `ConfigurationError` one of its own.)
    """

    def __init__(self, **fields: Any) -> None:
        """Store the steps, and bundle them."""
        super().__init__(**fields)
        cast(GuardedSequence, self)._bundle()


class GuardedSequence(Composable, _Bundling):
    """A chain with guards in it. Everything a `RunnableSequence` can do, it can do."""

    _written: list[Runnable[Any, Any]] = PrivateAttr(default_factory=list)
    _planned: list[Runnable[Any, Any]] = PrivateAttr(default_factory=list)

    def __init__(self, *steps: Any, name: str | None = None, **fields: Any) -> None:
        """Take the steps as a `RunnableSequence` does."""
        super().__init__(*steps, name=name, **fields)

    def _bundle(self) -> None:
        self._written = [self.first, *self.middle, self.last]
        self._planned = bundled(self._written)
        # Whoever takes a sequence apart by its fields must find what is safe to run one by one.
        first, *rest = self._planned
        self.__dict__["first"] = first if rest else RunnablePassthrough()
        self.__dict__["middle"] = rest[:-1]
        self.__dict__["last"] = rest[-1] if rest else first

    @property
    def written(self) -> list[Runnable[Any, Any]]:
        """Return the steps as they were written."""
        return [*self._written]

    @property
    def planned(self) -> list[Runnable[Any, Any]]:
        """Return the steps as they are run."""
        return [*self._planned]

    @property
    def InputType(self) -> Any:
        """Return the type of input that the first step takes."""
        return self._planned[0].InputType

    def get_output_schema(self, config: RunnableConfig | None = None) -> Any:
        """Return the schema of what the last step gives."""
        if self._planned[1:]:
            return super().get_output_schema(config)
        # For a single step, langchain-core returns the schema of its input.
        return self.last.get_output_schema(config)

    def get_graph(self, config: RunnableConfig | None = None) -> Graph:
        """Draw the steps."""
        return super().get_graph(config) if self._planned[1:] else self.last.get_graph(config)


class Closing(Composable):
    """A guard that closes what it stands behind."""

    @property
    @abstractmethod
    def gate(self) -> Gate:
        """Return what judges."""

    @property
    @abstractmethod
    def check_every(self) -> int:
        """Return after how many new tokens of a stream the answer is checked again."""


def written(value: Any) -> list[Runnable[Any, Any]]:
    """Return the steps that a value stands for in a chain.

    Raises:
        TypeError: It cannot stand in a chain.
    """
    if isinstance(value, Composable):
        return value.written
    if isinstance(value, RunnableSequence):
        return value.steps
    return [coerce_to_runnable(value)]


def bundled(steps: Sequence[Runnable[Any, Any]]) -> list[Runnable[Any, Any]]:
    """Put the steps that belong to each `OutputGuard` together with it.

    Guards nest like brackets: an `OutputGuard` belongs to the nearest `InputGuard` in front of it
    that has none yet. Without one, it belongs to all that is in front of it.

    Raises:
        ConfigurationError: There is nothing between two guards, or a guard is wrapped, or is only
            the class of one.
    """
    done: list[Runnable[Any, Any]] = []
    for step in steps:
        if _is_wrapped_guard(step):
            raise ConfigurationError(
                "a guard in a chain cannot be wrapped (with_config, with_retry, bind, ...); "
                "wrap the whole chain"
            )
        if (name := _name_of_class(step)) is not None:
            raise ConfigurationError(f"a chain needs a guard, not its class: write {name}()")
        if isinstance(step, Closing):
            done = _closed(done, step)
        else:
            done.append(step)
    return done


def _closed(steps: list[Runnable[Any, Any]], guard: Closing) -> list[Runnable[Any, Any]]:
    opening = [at for at, step in enumerate(steps) if isinstance(step, InputGuard)]
    if not opening:
        return _closed_from_the_start(steps, guard)
    front, [entry, *inner] = steps[: opening[-1]], steps[opening[-1] :]
    if not inner:
        raise ConfigurationError(
            "there is nothing between an InputGuard and its OutputGuard; put the steps to guard "
            "between them: prompt | InputGuard() | llm | OutputGuard()"
        )
    assert isinstance(entry, InputGuard)
    bundle = GuardedSteps(
        entry=entry.gate,
        steps=joined(inner),
        exit=guard.gate,
        mode=entry.mode,
        check_every=guard.check_every,
    )
    return [*front, bundle]


def _closed_from_the_start(
    steps: list[Runnable[Any, Any]], guard: Closing
) -> list[Runnable[Any, Any]]:
    prompts = 0
    while prompts < len(steps) - 1 and isinstance(steps[prompts], BasePromptTemplate):
        # They generate nothing, and what comes out of them is what the answer is judged with.
        prompts += 1
    front, inner = steps[:prompts], steps[prompts:]
    # The answer is judged with what the last model was asked, where a model can be seen.
    models = [at for at, step in enumerate(inner) if is_model(step)]
    cut = models[-1] if models else 0
    bundle = GuardedSteps(
        lead=joined(inner[:cut]),
        steps=joined(inner[cut:]),
        exit=guard.gate,
        check_every=guard.check_every,
    )
    return [*front, bundle]


def _name_of_class(step: Any) -> str | None:
    """Return the name of a guard's class that LangChain took for a function."""
    function = getattr(step, "func", None)
    if isinstance(function, type) and issubclass(function, InputGuard | Closing):
        return function.__name__
    return None


def _is_wrapped_guard(step: Any) -> bool:
    wrapped = False
    while isinstance(step, RunnableBindingBase):
        step, wrapped = step.bound, True
    return wrapped and isinstance(step, InputGuard | Closing)
