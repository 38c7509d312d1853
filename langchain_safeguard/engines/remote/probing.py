"""Finding out, by asking it, what a server can do, and whether it runs the right model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from langchain_safeguard.engines.base import Piece
from langchain_safeguard.engines.remote.dialect import (
    Dialect,
    body,
    completions,
    listed,
    tokens_read,
)
from langchain_safeguard.engines.remote.replica import Refusal, Replica, Trouble
from langchain_safeguard.engines.remote.texts import tokens_of
from langchain_safeguard.engines.tokens import PromptTokenizer
from langchain_safeguard.errors import GuardLoadError, GuardOutputError

_SAMPLE = (
    "The guard reads 1234567 words: is naïve “quoting” safe, or unsafe?\n\n"
    "Ein Gürtel, 안전합니까, 安全吗, безопасно; for (int i = 0; i < n; ++i) { sum += x[i]; }\n"
)
"""A text of which different vocabularies make different tokens."""
_TOPS = (100, 20, 5)
"""How many of the likeliest tokens to ask for; 20 is all that vLLM gives, and 5 OpenAI and TGI."""


async def probe(replica: Replica, tokenizer: PromptTokenizer, model: str) -> Dialect:
    """Ask a server for its models, and for some probabilities in one way after the other.

    Raises:
        Trouble: It cannot be reached or is not well.
        GuardLoadError: It does not run that model, runs one with another vocabulary, or gives no
            log-probabilities.
    """
    found = await _search(replica, tokenizer, model)
    # One that was not quite up yet can do more than it seemed to, and is not asked again later.
    best = found.several and found.selects
    return found if best else await _search(replica, tokenizer, model)


async def _search(replica: Replica, tokenizer: PromptTokenizer, model: str) -> Dialect:
    room = await _room(replica, model)
    ids = tokenizer.encode((Piece(_SAMPLE),))
    texts = await _takes_texts(replica, model, ids)
    refusal: Refusal | None = None
    silent = alone = False
    for dialect in _dialects(room, texts=texts):
        if dialect.several and alone:
            continue
        try:
            fits = await _try(replica, dialect, model, ids)
        except Refusal as error:
            refusal = refusal or error
        except GuardOutputError:
            silent = alone = True
        else:
            if fits:
                if not texts:
                    await _compare(replica, dialect, tokenizer, model, ids)
                return dialect
            silent = True
    if silent or refusal is None:
        raise _silent(replica, model)
    with suppress(Refusal):
        await _compare(replica, None, tokenizer, model, ids)
    # What it was asked is our own sample; its words can be shown.
    raise GuardLoadError(
        f"{replica.url} does not complete prompts given as tokens with {model!r} "
        f"(HTTP {refusal.status}): {refusal.message}"
    )


def _dialects(room: int | None, *, texts: bool) -> Iterator[Dialect]:
    """Yield what a server may be able to do, the best first."""
    if texts:
        yield Dialect(False, extras=True, selects=False, top=_TOPS[0], room=room, texts=True)
        return
    for several in (True, False):
        yield Dialect(several, extras=True, selects=True, top=1, room=room)
        for extras in (True, False):
            for top in _TOPS:
                yield Dialect(several, extras, selects=False, top=top, room=room)


async def _takes_texts(replica: Replica, model: str, ids: list[int]) -> bool:
    """Tell whether a server is one that takes texts only, and says what tokens it makes of them.

    Raises:
        GuardLoadError: It makes other tokens of a text, or gives no log-probabilities.
    """
    try:
        tokens = await tokens_of(replica, model, _SAMPLE)
    except Trouble:
        # Whether it is well is seen soon.
        return False
    if tokens is None:
        return False
    if tokens != ids:
        raise _foreign(replica, model)
    asked: dict[str, Any] = {"model": model, "prompt": _SAMPLE, "max_tokens": 1}
    await replica.post("completions", asked)
    try:
        await replica.post("completions", {**asked, "logprobs": 2})
    except Trouble:
        # It answers, but not that: llama-cpp-python breaks off if it does not keep all logits.
        raise _silent(replica, model) from None
    return True


async def _room(replica: Replica, model: str) -> int | None:
    """Make sure that a server runs a model; return how many tokens it takes, if it says so."""
    try:
        found = await replica.get("models")
    except Refusal:
        # Not every server has such a list; a wrong name shows when it is asked.
        return None
    data = found.get("data")
    models = [each for each in data if isinstance(each, dict)] if isinstance(data, list) else []
    for each in models:
        if each.get("id") == model:
            # As vLLM names it, and llama.cpp.
            meta = each.get("meta")
            room = each.get("max_model_len", meta.get("n_ctx") if isinstance(meta, dict) else None)
            return room if type(room) is int and room > 0 else None
    if not models:
        return None
    names = ", ".join(repr(str(each.get("id"))) for each in models[:10])
    raise GuardLoadError(
        f"{replica.url} serves no {model!r}; give served_model=, one of those it serves: {names}"
    )


async def _try(replica: Replica, dialect: Dialect, model: str, ids: list[int]) -> bool:
    """Tell whether a server can do what a dialect says.

    Raises:
        Refusal: It does not take what it was sent.
        GuardOutputError: It does not answer to each of the prompts; llama.cpp does, but it says of
            the first one only how much of it was read.
    """
    half = ids[: len(ids) // 2]
    prompts = [ids, half] if dialect.several else [ids]
    shown = [_SAMPLE] if dialect.texts else prompts
    asked = body(dialect, model, shown, chosen=_chosen(ids))
    answers = completions(await replica.post("completions", asked), prompts)
    try:
        entries = [listed(answer) for answer in answers]
    except GuardOutputError:
        return False
    if dialect.selects:
        return all({*_chosen(ids)} <= {key for key, _ in each} for each in entries)
    return all(len(each) > 1 for each in entries)


def _chosen(ids: list[int]) -> list[int]:
    return sorted({*ids})[:8]


async def _compare(
    replica: Replica,
    dialect: Dialect | None,
    tokenizer: PromptTokenizer,
    model: str,
    ids: list[int],
) -> None:
    """Make sure that a server makes the same tokens of a text."""
    asked: dict[str, Any] = {"model": model, "prompt": _SAMPLE, "max_tokens": 1}
    if dialect is not None and dialect.extras:
        asked["return_token_ids"] = True
    found = await replica.post("completions", asked)
    bare = ids[1:] if tokenizer.begins else ids
    choices = found.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    theirs = first.get("prompt_token_ids") if isinstance(first, dict) else None
    same = theirs in (ids, bare) if theirs else tokens_read(found) in (len(ids), len(bare))
    if not same:
        raise _foreign(replica, model)


def _silent(replica: Replica, model: str) -> GuardLoadError:
    return GuardLoadError(
        f"{replica.url} gives no log-probabilities for {model!r}, by which guards are scored; "
        "vLLM, SGLang and llama.cpp do (llama-cpp-python with --logits_all true)"
    )


def _foreign(replica: Replica, model: str) -> GuardLoadError:
    return GuardLoadError(
        f"{model!r} at {replica.url} has another vocabulary than the guard's tokenizer: it is not "
        "the guard's model"
    )
