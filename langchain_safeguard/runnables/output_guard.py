"""`OutputGuard`, behind which no unsafe answer comes, and `guarded`, both guards at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, overload

from langchain_core.runnables import (
    Runnable,
    RunnableConfig,
    RunnablePassthrough,
    RunnableSerializable,
)
from langchain_core.runnables.base import RunnableLike
from pydantic import PrivateAttr

from langchain_safeguard.errors import ConfigurationError
from langchain_safeguard.runnables.closing import joined
from langchain_safeguard.runnables.composition import Closing, GuardedSequence, written
from langchain_safeguard.runnables.flow import Mode
from langchain_safeguard.runnables.gate import Gate, GuardLike, OnBlock, PolicyLike, Refusal
from langchain_safeguard.runnables.guarded_steps import GuardedSteps
from langchain_safeguard.runnables.input_guard import InputGuard
from langchain_safeguard.safeguard import Safeguard

In = TypeVar("In")
Out = TypeVar("Out")


class OutputGuard(Closing):
    """Checks the answer of the steps in front of it, before anyone sees it.

    It takes over the steps back to the `InputGuard` it belongs to, or, without one, all steps in
    front of it. They run where no stream, event or callback shows what they generate. The answer is
    judged together with the prompt that led to it. A blocked answer is replaced by a refusal of its
    type; where none can be made (structured output), `ContentBlockedError` is raised, unless there
    is a `refusal`.

    Streams are checked while they grow: the first chunks come out after the first passed check, and
    a block ends the stream with the refusal, and the model's work.

    Called by itself, it checks a finished answer without its prompt. What can be done to a chain
    (`with_config`, `with_retry`, ...) is to be done to the whole chain, not to the guard.

    Args:
        guard: What judges: a name, a folder, a guard, or several; the embedded guard if left out.
        policy: What is done about it: a policy, a dict, or a YAML file; the default policy if left
            out.
        safeguard: A `Safeguard`, instead of both: for handlers, audit and timeouts.
        on_block: `"refuse"`, or `"raise"` to always raise `ContentBlockedError`.
        check_every: After how many new tokens, estimated, a stream is checked again.
        refusal: Makes the refusal from the `Decision`, where the steps return neither a message nor
            text, or to say it in your own words. An `InputGuard` without one uses it, too.

    Raises:
        ConfigurationError: A value is wrong; the message names it and what is allowed.

    Example:
        ```python
        chain = prompt | InputGuard() | llm | OutputGuard()
        ```
    """

    _gate: Gate = PrivateAttr()
    _check_every: int = PrivateAttr()

    def __init__(
        self,
        guard: GuardLike | None = None,
        policy: PolicyLike | None = None,
        *,
        safeguard: Safeguard | None = None,
        on_block: OnBlock = "refuse",
        check_every: int = 32,
        refusal: Refusal | None = None,
        name: str | None = None,
    ) -> None:
        """Check the values; the guard model is loaded when the first text is judged."""
        gate = Gate("output", guard, policy, safeguard, on_block, refusal)
        if type(check_every) is not int or check_every < 1:
            raise ConfigurationError(f"check_every={check_every!r}; allowed: 1, 2, ...")
        # A sequence has fields for its steps. These do no harm to whoever runs them one by one.
        alone = GuardedSteps(exit=gate, name=name or "OutputGuard")
        super().__init__(first=RunnablePassthrough(), last=alone, name=name)
        self._gate = gate
        self._check_every = check_every

    if TYPE_CHECKING:
        # For type checkers: what it stands behind keeps its types.
        @overload  # type: ignore[override]
        def __ror__(self, other: Runnable[In, Out]) -> RunnableSerializable[In, Out]: ...
        @overload
        def __ror__(self, other: Mapping[str, Any]) -> RunnableSerializable[Any, Any]: ...
        @overload
        def __ror__(self, other: Callable[..., Any]) -> RunnableSerializable[Any, Any]: ...
        def __ror__(self, other: Any) -> RunnableSerializable[Any, Any]: ...

    @property
    def gate(self) -> Gate:
        """Return what judges."""
        return self._gate

    @property
    def check_every(self) -> int:
        """Return after how many new tokens of a stream the answer is checked again."""
        return self._check_every

    @property
    def written(self) -> list[Runnable[Any, Any]]:
        """Return the guard itself."""
        return [self]

    @property
    def planned(self) -> list[Runnable[Any, Any]]:
        """Return the check of a finished answer."""
        return [self.last]

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Check a finished answer."""
        return self._alone(config).invoke(input, config)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Check a finished answer."""
        return await self._alone(config).ainvoke(input, config)

    def batch(self, inputs: list[Any], config: Any = None, **kwargs: Any) -> list[Any]:
        """Check finished answers in one pass of the guard."""
        return self._alone(config).batch(inputs, config, **kwargs)

    async def abatch(self, inputs: list[Any], config: Any = None, **kwargs: Any) -> list[Any]:
        """Check finished answers in one pass of the guard."""
        return await self._alone(config).abatch(inputs, config, **kwargs)

    def transform(
        self, input: Iterator[Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        """Check an answer when it is finished."""
        yield from self._alone(config).transform(input, config)

    async def atransform(
        self, input: AsyncIterator[Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """Check an answer when it is finished."""
        async for chunk in self._alone(config).atransform(input, config):
            yield chunk

    def _alone(self, config: Any) -> Runnable[Any, Any]:
        """Return the check of a finished answer.

        Raises:
            ConfigurationError: The guard runs as a step of a sequence that it could not take over,
                so that events have shown the answer before it was checked.
        """
        configs = config if isinstance(config, list) else [config or {}]
        tags = {tag for each in configs for tag in getattr(each.get("callbacks"), "tags", ())}
        if any(tag.startswith("seq:step:") and tag != "seq:step:1" for tag in tags):
            raise ConfigurationError(
                "this chain was built in a way that keeps its OutputGuard from taking over the "
                "steps in front of it; write a | b | OutputGuard(), or guarded(chain)"
            )
        return self.last

    def _wrapped(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: a wrapped guard cannot take over the steps in front of it."""
        raise ConfigurationError(
            "an OutputGuard is set up by its arguments; use with_config, with_retry, bind and the "
            "like on the whole chain: (llm | OutputGuard()).with_config(...)"
        )

    bind = with_config = with_types = with_retry = with_fallbacks = _wrapped
    with_listeners = with_alisteners = map = _wrapped
    configurable_fields = configurable_alternatives = _wrapped

    def __repr__(self) -> str:
        return repr(self._gate)

    __str__ = __repr__


@overload
def guarded(
    chain: Mapping[str, Any], *args: Any, **options: Any
) -> RunnableSerializable[Any, Any]: ...
@overload
def guarded(
    chain: RunnableLike[In, Out],
    guard: GuardLike | None = None,
    policy: PolicyLike | None = None,
    *,
    input: bool = True,
    output: bool = True,
    safeguard: Safeguard | None = None,
    on_block: OnBlock = "refuse",
    mode: Mode = "sequential",
    check_every: int = 32,
    refusal: Refusal | None = None,
) -> RunnableSerializable[In, Out]: ...
def guarded(
    chain: RunnableLike[Any, Any],
    guard: GuardLike | None = None,
    policy: PolicyLike | None = None,
    *,
    input: bool = True,
    output: bool = True,
    safeguard: Safeguard | None = None,
    on_block: OnBlock = "refuse",
    mode: Mode = "sequential",
    check_every: int = 32,
    refusal: Refusal | None = None,
) -> RunnableSerializable[Any, Any]:
    """Guard any chain: its input, its output, or both.

    Args:
        chain: A runnable, or what LangChain makes one of: a function, a dict of runnables.
        guard: What judges: a name, a folder, a guard, or several; the embedded guard if left out.
        policy: What is done about it: a policy, a dict, or a YAML file; the default policy if left
            out.
        input: Whether to check what goes in.
        output: Whether to check what comes out.
        safeguard: A `Safeguard`, instead of guard and policy: for handlers, audit and timeouts.
        on_block: `"refuse"`, or `"raise"` to always raise `ContentBlockedError`.
        mode: `"sequential"`, or `"parallel"` to start the chain while its input is checked; not
            around steps with side effects.
        check_every: After how many new tokens, estimated, a stream is checked again.
        refusal: Makes the refusal from the `Decision`, where the chain returns neither a message
            nor text, or to say it in your own words.

    Returns:
        A chain with the same inputs and outputs.

    Raises:
        ConfigurationError: A value is wrong; the message names it and what is allowed.

    Example:
        `guarded(prompt | llm)`
    """
    for side, wanted in (("input", input), ("output", output)):
        if not isinstance(wanted, bool):
            raise ConfigurationError.unknown(side, wanted, (True, False))
    if not input and not output:
        raise ConfigurationError("input=False and output=False leave nothing to guard")
    try:
        steps = written(chain)
    except TypeError:
        allowed = "a runnable, a function, or a dict of these"
        given = f"a {type(chain).__name__}"  # which may hold what nobody has checked
        raise ConfigurationError(f"chain: {given}; allowed: {allowed}") from None
    common: dict[str, Any] = {"safeguard": safeguard, "on_block": on_block, "refusal": refusal}
    entry = InputGuard(guard, policy, mode=mode, **common)
    exit = OutputGuard(guard, policy, check_every=check_every, **common)
    if input and output:
        return GuardedSequence(entry, *steps, exit)
    if output:
        return GuardedSequence(*steps, exit)
    return GuardedSteps(entry=entry.gate, steps=joined(steps), mode=mode)
