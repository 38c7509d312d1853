"""What is asked of one server: probabilities at the forks of an answer, and what it writes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from langchain_safeguard.engines.answering import Answering
from langchain_safeguard.engines.answers import Fork, Stage
from langchain_safeguard.engines.base import Writing
from langchain_safeguard.engines.remote.bounds import Listing, decided, grouped
from langchain_safeguard.engines.remote.dialect import (
    Dialect,
    Tokens,
    body,
    completions,
    groups,
    listed,
    written,
)
from langchain_safeguard.engines.remote.replica import Refusal, Replica, Trouble
from langchain_safeguard.engines.remote.texts import as_texts
from langchain_safeguard.errors import GuardConnectionError, GuardOutputError


class Scoring:
    """Asks servers about a model.

    Args:
        answering: Goes through the answers.
        model: What the servers call the model.

    Attributes:
        requests: How many requests were made.
    """

    def __init__(self, answering: Answering, model: str) -> None:
        """Store."""
        self.requests = 0
        self._answering = answering
        self._tokenizer = answering.tokenizer
        self._model = model
        # Made when the first server that names tokens by texts is asked.
        self._spellings = cache(lambda spaced: answering.tokenizer.spellings(spaced=spaced))

    async def read(
        self, replica: Replica, ids: Tokens, stage: Stage
    ) -> dict[str, dict[str, float]]:
        """Return the readings of a stage of an answer: per reading a probability per label.

        Raises:
            Trouble: The server does not do its part.
            GuardOutputError: It cannot tell.
        """
        dialect = _dialect(replica)
        forks = stage.forks

        async def ask(places: Sequence[int]) -> list[Listing]:
            prompts = [[*ids, *forks[place].path] for place in places]
            chosen = [id_ for place in places for id_ in forks[place].choices]
            found = await self._complete(replica, prompts, chosen=chosen)
            try:
                return [
                    self._listing(dialect, each, forks[place])
                    for place, each in zip(places, found, strict=True)
                ]
            except GuardOutputError as error:
                raise Trouble(error) from None

        places = groups(dialect, [fork.choices for fork in forks])
        # One after the other: a server that has just read the prompt need not read it again.
        found = [await ask(some) for some in places]
        listings = {
            forks[place]: listing
            for some, answered in zip(places, found, strict=True)
            for place, listing in zip(some, answered, strict=True)
        }
        return {name: decided(fork, listings) for name, fork in stage.readings}

    async def write(self, replica: Replica, ids: Tokens, writing: Writing) -> list[int]:
        """Return the tokens that the model writes, always the likeliest next one.

        Raises:
            Trouble: The server does not do its part.
            GuardOutputError: There is no room to write.
        """
        dialect = _dialect(replica)
        limit = (
            writing.limit if dialect.room is None else min(writing.limit, dialect.room - len(ids))
        )
        if limit < 1:
            raise GuardOutputError("the model has no room left to write an answer")
        [found] = await self._complete(replica, [ids], limit=limit, until=writing.until)
        given = written(found)
        if isinstance(given, str):
            # Behind a line break, as some tokenizers put a space in front of a beginning.
            tokens = self._tokenizer.after("\n", given) if given else []
            if tokens is None:
                raise Trouble(GuardOutputError("the vocabulary has no tokens for what was written"))
            given = tokens
        taken: list[int] = []
        for token in given:
            if not self._answering.goes_on(writing, taken, token):
                break
        return taken

    def _listing(self, dialect: Dialect, completion: dict[str, Any], fork: Fork) -> Listing:
        entries = [
            (self._ids(dialect, key) if isinstance(key, str) else {key}, value)
            for key, value in listed(completion)
        ]
        tokens = {id_ for ids, _ in entries for id_ in ids}
        if dialect.selects and not tokens >= {*fork.choices}:
            raise GuardOutputError("the server left out a token that was asked for")
        listing = Listing(tuple((frozenset(ids), value) for ids, value in entries), dialect.selects)
        # If these are no probabilities, that is seen here, where another server may still be asked.
        listing.masses(grouped(fork)[1])
        return listing

    def _ids(self, dialect: Dialect, name: str) -> frozenset[int]:
        # The one server known to take texts only writes words with their spaces.
        return self._spellings(dialect.texts).get(name, frozenset())

    async def _complete(
        self, replica: Replica, prompts: Sequence[Tokens], **how: Any
    ) -> list[dict[str, Any]]:
        self.requests += 1
        dialect, status = _dialect(replica), 0
        wrong: GuardOutputError | None = None
        shown: Sequence[Tokens | str] = prompts
        if dialect.texts:
            shown = await as_texts(replica, self._model, self._tokenizer, prompts)
        asked = body(dialect, self._model, shown, **how)
        try:
            return completions(await replica.post("completions", asked), prompts)
        except Refusal as refusal:
            status = refusal.status
        except GuardOutputError as error:
            wrong = error
        # Outside, so that no chain of errors leads to the server's words.
        if wrong is not None:
            raise Trouble(wrong)
        if status == 404:
            raise Trouble(GuardConnectionError(f"{replica.url} serves no {self._model!r} any more"))
        raise GuardOutputError(
            f"{replica.url} refuses a prompt of {max(map(len, prompts))} tokens (HTTP {status}); "
            "if it takes fewer, give max_tokens="
        )


def _dialect(replica: Replica) -> Dialect:
    assert replica.dialect is not None, "only servers whose health was checked are asked"
    return replica.dialect
