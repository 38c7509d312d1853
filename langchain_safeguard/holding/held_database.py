"""Answers and results that wait in a database, so that they outlive the process."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

from langchain_core.tools import ToolException

from langchain_safeguard.database import Database
from langchain_safeguard.errors import ConfigurationError, MissingExtraError
from langchain_safeguard.holding.error_words import words_of
from langchain_safeguard.holding.held import Held, Outcome
from langchain_safeguard.taxonomy import Category
from langchain_safeguard.verdict import Finding, Span, Verdict

try:
    from sqlalchemy import Column, Float, LargeBinary, MetaData, String, Table
except ModuleNotFoundError as missing:
    raise MissingExtraError("sqlalchemy", "review") from missing
try:
    from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
except ModuleNotFoundError as missing:
    raise MissingExtraError("langgraph", "agents") from missing

_METADATA = MetaData()
_HELD = Table(
    "safeguard_held",
    _METADATA,
    Column("key", String(64), primary_key=True),
    Column("held_at", Float, nullable=False),
    Column("settled_at", Float, index=True),
    Column("form", String(32), nullable=False),
    Column("content", LargeBinary, nullable=False),
)


class HeldDatabase:
    """Keeps what waits for a person's decision in a database: the `held` of a `Safeguard`.

    Messages and plain values are kept as LangGraph's checkpointers keep them; nothing is pickled,
    and only types that LangGraph knows as safe are made of what is read. What cannot be kept like
    that, such as an object of your own as a tool's result, is blocked without asking anybody. An
    error of a tool comes back as a `ToolException` with the same words.

    The database holds unsafe text, readable for whoever may read it.

    Args:
        url: The path of an SQLite file, or the URL of a database, such as
            `"postgresql://user@host/name"` (extra `[postgresql]`). The table `safeguard_held` is
            made if it is not there; a `ReviewQueue` may use the same database.
        keep: How long something is kept after it was decided about, in case the run fails and
            begins the step anew. What waits is never deleted.
        timeout: The seconds to wait for the database: to connect, or for others to finish writing.

    Raises:
        ConfigurationError: A value is wrong.
        MissingExtraError: A package is missing.
        ReviewError: The database cannot be reached.

    Example:
        ```python
        held = HeldDatabase("held.db")
        safeguard = Safeguard(policy="policy.yaml", handlers=[ask_a_person], held=held)
        ```
    """

    def __init__(
        self, url: str | Path, *, keep: timedelta = timedelta(days=1), timeout: float = 10.0
    ) -> None:
        """Connect, and make the table if it is not there."""
        if not isinstance(keep, timedelta) or keep < timedelta():
            raise ConfigurationError(f"keep={keep!r}; allowed: a timedelta of 0 or more")
        self._database = Database(url, _METADATA, name="database of what is held", timeout=timeout)
        self._keep = keep.total_seconds()
        self._serializer = JsonPlusSerializer(allowed_msgpack_modules=None)

    def hold(self, key: str, held: Held) -> None:
        """Keep something under a key.

        Raises:
            TypeError: It cannot be kept.
        """
        form, content = self._written(held)
        now = time.time()
        settled = None if held.waits else now
        row = {"key": key, "held_at": now, "form": form, "content": content, "settled_at": settled}
        with self._database.connected() as connection:
            old = _HELD.c.settled_at < now - self._keep
            connection.execute(_HELD.delete().where(old | (_HELD.c.key == key)))
            connection.execute(_HELD.insert().values(row))

    def get(self, key: str) -> Held | None:
        """Return what is kept under a key, or `None` if it is gone."""
        with self._database.connected() as connection:
            found = connection.execute(_HELD.select().where(_HELD.c.key == key)).one_or_none()
        return None if found is None else self._read(found.form, found.content)

    def settle(self, key: str) -> None:
        """Note that it is decided about."""
        waits = (_HELD.c.key == key) & _HELD.c.settled_at.is_(None)
        with self._database.connected() as connection:
            connection.execute(_HELD.update().where(waits).values(settled_at=time.time()))

    def close(self) -> None:
        """Close the connections."""
        self._database.close()

    def _written(self, held: Held) -> tuple[str, bytes]:
        value = held.value
        facts: dict[str, Any] = {"verdicts": json.loads(json.dumps([*map(asdict, held.verdicts)]))}
        if isinstance(value, Outcome) and value.failure is not None:
            facts["failure"] = words_of(value.failure) or [type(value.failure).__name__]
        elif isinstance(value, Outcome):
            facts["result"] = value.result
        else:
            facts["answer"] = value
        form, content = self._serializer.dumps_typed(facts)
        back = self._serializer.loads_typed((form, content))
        # Objects of unknown types come back as plain values.
        types = [[type(item) for item in each.values()] for each in (facts, back)]
        if types[0] != types[1] or self._serializer.dumps_typed(back)[1] != content:
            raise TypeError("it cannot be written down so that it comes back the same")
        return form, content

    def _read(self, form: str, content: bytes) -> Held:
        facts = self._serializer.loads_typed((form, content))
        verdicts = tuple(_verdict(each) for each in facts["verdicts"])
        if "failure" in facts:
            first, *rest = facts["failure"]
            failure = ToolException(first)
            for words in rest:
                failure.add_note(words)
            return Held(verdicts, Outcome(failure=failure))
        if "result" in facts:
            return Held(verdicts, Outcome(facts["result"]))
        return Held(verdicts, facts["answer"])


def _verdict(facts: dict[str, Any]) -> Verdict:
    findings = [{**each, "category": Category.of(each["category"])} for each in facts["findings"]]
    return Verdict(
        **{
            **facts,
            "findings": tuple(Finding(**each) for each in findings),
            "spans": tuple(Span(**each) for each in facts["spans"]),
            "unchecked": tuple(facts["unchecked"]),
        }
    )
