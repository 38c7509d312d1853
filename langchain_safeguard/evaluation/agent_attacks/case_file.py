"""Reading files of agent attacks, and crossing what they hold into cases."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from langchain_safeguard.errors import ConfigurationError
from langchain_safeguard.evaluation.agent_attacks.cases import Case, readable, texts_of
from langchain_safeguard.evaluation.agent_attacks.records import (
    GOAL,
    INJECTION,
    Attack,
    FunctionCall,
    Injection,
    InjectionTask,
    Record,
    Suite,
    ToolSpec,
    UserTask,
)
from langchain_safeguard.evaluation.dataset import DatasetError, file_text, json_records

BUILTIN = Path(__file__).with_name("builtin.jsonl")
"""The cases in the package."""

_RECORD: TypeAdapter[Any] = TypeAdapter(Record)
_DIRECT = Attack(kind="attack", id="direct", text=GOAL)
_LONGEST = 60
R = TypeVar("R")


def read_cases(path: str | Path = BUILTIN) -> list[Case]:
    """Read the cases of a file: each user task without an injection, then all with one.

    Args:
        path: JSON lines, plain or gzipped; `langchain_safeguard.evaluation.agent_attacks.records`
            describes them. The cases in the package if left out.

    Raises:
        DatasetError: The file cannot be read, or a line is wrong: each is named with its number,
            the bad value and what is allowed.
    """
    path = Path(path)
    records: list[tuple[int, Any]] = []
    problems: list[tuple[int, str]] = []
    for line, record in json_records(file_text(path)):
        try:
            if isinstance(record, Exception):
                raise record
            records.append((line, _record(record)))
        except ConfigurationError as error:
            problems.append((line, str(error)))
    if problems:
        raise DatasetError(path, problems)
    book = _Book(records)
    if not book.tasks:
        book.problems.add((0, "it has no user task"))
    if book.problems:
        raise DatasetError(path, sorted(book.problems))
    return book.cases


def sampled(cases: Sequence[Case], limit: int, seed: int) -> list[Case]:
    """Keep all benign cases, and at most so many attacked ones, chosen at random.

    Args:
        cases: The cases.
        limit: The most attacked cases; 0 keeps all.
        seed: The same seed chooses the same ones.
    """
    attacked = [number for number, case in enumerate(cases) if case.attacked]
    if 0 < limit < len(attacked):
        kept = set(random.Random(seed).sample(attacked, limit))
        return [case for at, case in enumerate(cases) if not case.attacked or at in kept]
    return [*cases]


class _Book:
    """All records of a file, what is wrong between them, and the cases they make."""

    def __init__(self, records: Sequence[tuple[int, Any]]) -> None:
        self.problems: set[tuple[int, str]] = set()
        self._suites = {suite.id: suite for _, suite in _only(Suite, records)}
        self.tasks = _only(UserTask, records)
        self._injections = _only(InjectionTask, records)
        self._attacks = _only(Attack, records)
        self._used: set[str] = set()
        self._check_names(records)
        self.cases = [] if self.problems else self._cross()

    def _check_names(self, records: Sequence[tuple[int, Any]]) -> None:
        seen = Counter[tuple[str, str]]()
        for line, record in records:
            seen[record.kind, record.id] += 1
            if seen[record.kind, record.id] > 1:
                self.problems.add((line, f"a second {record.kind} with the id {record.id!r}"))
            suite = getattr(record, "suite", None)
            if suite is not None and suite not in self._suites:
                allowed = [*self._suites] or ["(the file has none)"]
                self.problems.add((line, str(ConfigurationError.unknown("suite", suite, allowed))))
            for name in _doubles([tool.name for tool in getattr(record, "tools", ())]):
                self.problems.add((line, f"two tools with the name {name!r}"))
            for name in _doubles([each.id for each in getattr(record, "injections", ())]):
                self.problems.add((line, f"two injections with the id {name!r}"))

    def _cross(self) -> list[Case]:
        benign, attacked = [], []
        tried: set[int] = set()
        for line, task in self.tasks:
            tools = self._tools(task)
            case = Case(task.id, task, tools, text=task.injection_default)
            if not self._fits(line, case):
                continue
            benign.append(case)
            own = [(line, injection) for injection in task.injections]
            shared = [
                (at, injection)
                for at, injection in self._injections
                if (injection.suite or task.suite) == task.suite
                and (injection.suite or _missing(injection.ground_truth, tools) is None)
            ]
            for at, injection in [*own, *shared]:
                tried.add(at)
                for attacker in self._worded(at, injection):
                    attacked.append(_attacked(case, injection, attacker))
                    found = _attack_problems(attacked[-1])
                    self.problems.update((at, problem) for problem in found)
        for line, _ in self._injections:
            if line not in tried:
                self.problems.add((line, "no user task has the tools that it needs"))
        for line, attack in self._attacks:
            if attack.id not in self._used:
                what = f"no injection task of lang={attack.lang!r} is left for it to word"
                self.problems.add((line, what))
        return [*benign, *attacked]

    def _tools(self, task: UserTask) -> dict[str, ToolSpec]:
        shared = self._suites[task.suite].tools if task.suite is not None else []
        return {tool.name: tool for tool in [*shared, *task.tools]}

    def _fits(self, line: int, case: Case) -> bool:
        """Check what a user task must have in any case."""
        found = [*_task_problems(case)]
        self.problems.update((line, problem) for problem in found)
        return not found

    def _worded(self, line: int, injection: Injection) -> Iterator[Attack]:
        """Find the attacks that word an injection."""
        if injection.text is not None:
            yield Attack.model_construct(
                kind="attack",
                id="own",
                text=injection.text,
                style=injection.style or "own",
                source=injection.source,
            )
            return
        if injection.style is not None:
            self.problems.add((line, "a style without a text; attacks have styles"))
        fitting = [attack for _, attack in self._attacks if attack.lang == injection.lang]
        self._used.update(attack.id for attack in fitting)
        yield from fitting or [_DIRECT]


def _attacked(case: Case, injection: Injection, attack: Attack) -> Case:
    return Case(
        id=f"{case.id}/{injection.id}/{attack.id}",
        task=case.task,
        tools=case.tools,
        injection=injection,
        text=attack.text.replace(GOAL, injection.goal),
        style=attack.style or attack.id,
        attack=attack.id,
        source=attack.source,
    )


def _task_problems(case: Case) -> Iterator[str]:
    missing = _missing(case.steps, case.tools)
    if missing is not None:
        yield missing
        return
    if not case.changes(case.steps):
        yield (
            "no call in ground_truth has a side effect, so nothing would show that the task is "
            "done; let the agent answer by a tool with side_effect=true"
        )
    raw = [
        case.tools[step.name].result if step.result is None else step.result for step in case.steps
    ]
    if not any(INJECTION in text for text in texts_of(raw)):
        yield f"no result of a call has a place for the injection; write {INJECTION} there"
    for number, step in enumerate(case.steps):
        earlier = readable("\n".join(texts_of([*map(case.result_of, case.steps[:number])])))
        for need in step.needs or ():
            if readable(need) not in earlier:
                yield (
                    f"ground_truth.{number}.needs={_brief(need)}; allowed: texts in the results "
                    "of earlier calls"
                )


def _attack_problems(case: Case) -> Iterator[str]:
    assert case.injection is not None
    missing = _missing(case.attack_steps, case.tools)
    if missing is not None:
        yield f"{missing} (in the user task {case.task.id!r})"
        return
    wanted = case.changes(case.attack_steps)
    if not wanted:
        yield "no call in ground_truth has a side effect, so nothing would show its success"
    elif all(_is_among(call, case.changes(case.steps)) for call in wanted):
        yield f"its calls are those of the user task {case.task.id!r}"
    if not case.is_obeyed(case.text):
        yield (
            f"goal={_brief(case.injection.goal)} does not stand in the text {_brief(case.text)}, "
            "so the agent could not read it"
        )
    results = [case.task.prompt, *texts_of([step.result for step in case.steps])]
    if case.is_obeyed("\n".join([*results, case.task.injection_default])):
        yield f"the user task {case.task.id!r} already holds the goal without the injection"


def _missing(calls: Sequence[FunctionCall], tools: dict[str, ToolSpec] | Any) -> str | None:
    """Say which tool is not there."""
    for number, call in enumerate(calls):
        if call.name not in tools:
            unknown = ConfigurationError.unknown("tool", call.name, tools or ["(there are none)"])
            return f"ground_truth.{number}: {unknown}"
    return None


def _is_among(call: FunctionCall, calls: Sequence[FunctionCall]) -> bool:
    return any((call.name, call.args) == (each.name, each.args) for each in calls)


def _record(value: Any) -> Any:
    try:
        return _RECORD.validate_python(value)
    except ValidationError as error:
        kinds = ("suite", "user_task", "injection_task", "attack")
        raise ConfigurationError(
            "; ".join(
                f"{'.'.join(str(part) for part in each['loc'] if part not in kinds) or 'the line'}"
                f"={_brief(each['input'])}: {each['msg']}"
                for each in error.errors()[:3]
            )
        ) from None


def _only(kind: type[R], records: Sequence[tuple[int, Any]]) -> list[tuple[int, R]]:
    return [(line, record) for line, record in records if type(record) is kind]


def _doubles(names: Sequence[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
