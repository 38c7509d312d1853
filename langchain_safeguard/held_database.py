"""Answers and results that wait in a database, so that they outlive the process."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from langchain_core.tools import ToolException

from langchain_safeguard.errors import ConfigurationError, MissingExtraError
from langchain_safeguard.held import Held, Outcome, words_of
from langchain_safeguard.sql_tables import make_private, make_tables
from langchain_safeguard.taxonomy import Category
from langchain_safeguard.verdict import Finding, Span, Verdict

try:
    import sqlalchemy
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
        url: An SQLAlchemy URL, such as `sqlite:///held.db` or `postgresql+psycopg://host/name`. The
            table `safeguard_held` is made if it is not there.
        keep: How long something is kept after it was decided about, in case the run fails and
            begins the step anew. What waits is never deleted.

    Raises:
        ConfigurationError: The URL cannot be used, or `keep` is no time.
        MissingExtraError: SQLAlchemy or LangGraph is not installed.

    Example:
        ```python
        held = HeldDatabase("sqlite:///held.db")
        safeguard = Safeguard(policy="policy.yaml", handlers=[ask_a_person], held=held)
        ```
    """

    def __init__(self, url: str, *, keep: timedelta = timedelta(days=1)) -> None:
        """Connect, and make the table if it is not there."""
        if not isinstance(keep, timedelta) or keep < timedelta():
            raise ConfigurationError(f"keep={keep!r}; allowed: a timedelta of 0 or more")
        if not isinstance(url, str):
            raise ConfigurationError(f"url: a {type(url).__name__}; allowed: an SQLAlchemy URL")
        try:
            # Without that, errors repeat what was to be written.
            engine = sqlalchemy.create_engine(url, pool_pre_ping=True, hide_parameters=True)
        except (sqlalchemy.exc.ArgumentError, ModuleNotFoundError) as error:
            # A URL may hold a password, and SQLAlchemy's error repeats it.
            raise ConfigurationError(
                f"url: no database can be reached by it ({type(error).__name__}); allowed: an "
                "SQLAlchemy URL whose driver is installed, such as 'sqlite:///held.db'"
            ) from None
        if engine.dialect.name == "sqlite" and engine.url.database in (None, "", ":memory:"):
            raise ConfigurationError("url: a database in memory; HeldResults() is one already")
        self._engine = engine
        self._keep = keep.total_seconds()
        self._serializer = JsonPlusSerializer(allowed_msgpack_modules=None)
        try:
            make_private(engine.url)
            with engine.begin() as connection:
                make_tables(connection, _METADATA)
        except sqlalchemy.exc.SQLAlchemyError as error:
            raise ConfigurationError(
                "url: the database does not answer, or lets nobody make the table "
                f"{_HELD.name!r} ({type(error).__name__})"
            ) from error

    def hold(self, key: str, held: Held) -> None:
        """Keep something under a key.

        Raises:
            TypeError: It cannot be kept.
        """
        form, content = self._written(held)
        now = time.time()
        row = {"key": key, "held_at": now, "form": form, "content": content}
        with self._engine.begin() as connection:
            old = _HELD.c.settled_at < now - self._keep
            connection.execute(_HELD.delete().where(old | (_HELD.c.key == key)))
            connection.execute(_HELD.insert().values(row))

    def get(self, key: str) -> Held | None:
        """Return what is kept under a key, or `None` if it is gone."""
        with self._engine.connect() as connection:
            found = connection.execute(_HELD.select().where(_HELD.c.key == key)).one_or_none()
        return None if found is None else self._read(found.form, found.content)

    def settle(self, key: str) -> None:
        """Note that it is decided about."""
        waits = (_HELD.c.key == key) & _HELD.c.settled_at.is_(None)
        with self._engine.begin() as connection:
            connection.execute(_HELD.update().where(waits).values(settled_at=time.time()))

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def _written(self, held: Held) -> tuple[str, bytes]:
        value = held.value
        facts: dict[str, Any] = {"verdicts": json.loads(json.dumps([*map(asdict, held.verdicts)]))}
        if isinstance(value, Outcome) and value.failure is not None:
            facts["failure"] = [*words_of(value.failure)]
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
