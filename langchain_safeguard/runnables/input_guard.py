"""`InputGuard`: the step behind which no unsafe input comes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from langchain_core.runnables import RunnableConfig, RunnableSerializable
from pydantic import ConfigDict, PrivateAttr

from langchain_safeguard.errors import ConfigurationError
from langchain_safeguard.runnables.flow import Mode
from langchain_safeguard.runnables.gate import Gate, GuardLike, OnBlock, PolicyLike, Refusal
from langchain_safeguard.runnables.guarded_steps import GuardedSteps
from langchain_safeguard.safeguard import Safeguard


class InputGuard(RunnableSerializable[Any, Any]):
    """Checks what the user says before the steps behind it run.

    Together with an `OutputGuard` further behind it makes a guarded chain: a blocked input gives a
    refusal, and none of the steps between the two guards is called. Without one, nothing in the
    chain could turn a block into an answer, so a block raises `ContentBlockedError`.

    It passes on what it was given: the same object if it is allowed, or, if the policy rewrites, a
    copy in which the user's text since the last answer is another. Messages, prompt values, texts,
    documents, and dicts of these are read.

    Args:
        guard: What judges: a name, a folder, a guard, or several; the embedded guard if left out.
        policy: What is done about it: a policy, a dict, or a YAML file; the default policy if left
            out.
        safeguard: A `Safeguard`, instead of both: for handlers, audit and timeouts.
        on_block: `"refuse"`, or `"raise"` to always raise `ContentBlockedError`.
        mode: `"sequential"`, or `"parallel"` to start the guarded steps while the input is checked.
            Nothing they return is released before the verdict, and a block ends them, but they have
            started: do not use it around steps with side effects. Batches are always sequential.
        refusal: Makes the refusal from the `Decision`, where the guarded steps return neither a
            message nor text, or to say it in your own words.

    Raises:
        ConfigurationError: A value is wrong; the message names it and what is allowed.

    Example:
        ```python
        chain = prompt | InputGuard() | llm | OutputGuard()
        ```
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, frozen=True)

    guard: Any = None
    policy: Any = None
    safeguard: Any = None
    on_block: OnBlock = "refuse"
    mode: Literal["sequential", "parallel"] = "sequential"
    refusal: Any = None
    _gate: Gate = PrivateAttr()

    def __init__(
        self,
        guard: GuardLike | None = None,
        policy: PolicyLike | None = None,
        *,
        safeguard: Safeguard | None = None,
        on_block: OnBlock = "refuse",
        mode: Mode = "sequential",
        refusal: Refusal | None = None,
        name: str | None = None,
    ) -> None:
        """Check the values; the guard model is loaded when the first text is judged."""
        gate = Gate("input", guard, policy, safeguard, on_block, refusal)
        if mode not in ("sequential", "parallel"):
            raise ConfigurationError.unknown("mode", mode, ("sequential", "parallel"))
        fields: dict[str, Any] = {
            "guard": guard,
            "policy": policy,
            "safeguard": safeguard,
            "on_block": on_block,
            "mode": mode,
            "refusal": refusal,
            "name": name,
        }
        super().__init__(**fields)
        self._gate = gate

    @property
    def gate(self) -> Gate:
        """Return what judges."""
        return self._gate

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Return the input, or what the policy made of it.

        Raises:
            ContentBlockedError: It is blocked.
            UnreadableInputError: It cannot be read as a conversation.
        """
        return self._alone.invoke(input, config)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Return the input, or what the policy made of it; see `invoke`."""
        return await self._alone.ainvoke(input, config)

    def batch(self, inputs: list[Any], *args: Any, **kwargs: Any) -> list[Any]:
        """Check all inputs in one pass of the guard; see `invoke`."""
        return self._alone.batch(inputs, *args, **kwargs)

    async def abatch(self, inputs: list[Any], *args: Any, **kwargs: Any) -> list[Any]:
        """Check all inputs in one pass of the guard; see `invoke`."""
        return await self._alone.abatch(inputs, *args, **kwargs)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy; what is updated is checked, and holds."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self)(**{**fields, **(update or {})})

    @property
    def _alone(self) -> GuardedSteps:
        return GuardedSteps(entry=self._gate, name=self.get_name())

    def __repr_args__(self) -> Any:
        """Leave out what was not given."""
        return [(key, value) for key, value in super().__repr_args__() if value is not None]
