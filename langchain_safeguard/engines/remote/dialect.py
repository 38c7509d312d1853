"""What a server can do, and requests and answers in its way of speaking."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_safeguard.errors import GuardOutputError

Tokens = Sequence[int]

_SELECTED = 128
"""The most tokens whose probability vLLM gives at once."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a server was found to be able to do.

    Attributes:
        several: It takes several prompts in one request.
        extras: It takes fields beside OpenAI's, such as vLLM's and llama.cpp's.
        selects: It gives the probabilities of chosen tokens, however unlikely.
        top: Of how many of the likeliest tokens it gives the probability.
        room: The most tokens of prompt and answer together; `None` if it does not say.
        texts: It takes prompts as texts only, and tells which tokens it makes of one.
    """

    several: bool
    extras: bool
    selects: bool
    top: int
    room: int | None = None
    texts: bool = False


def body(
    dialect: Dialect,
    model: str,
    prompts: Sequence[Tokens | str],
    *,
    chosen: Iterable[int] = (),
    limit: int = 1,
    until: str | None = None,
) -> dict[str, Any]:
    """Return a request.

    Args:
        dialect: The server's.
        model: What the server calls it.
        prompts: The prompts, as texts where the server takes nothing else; only one where it takes
            no more.
        chosen: The tokens whose probability is wanted.
        limit: The most tokens to write.
        until: Where to stop writing.
    """
    each = [prompt if isinstance(prompt, str) else [*prompt] for prompt in prompts]
    request: dict[str, Any] = {
        "model": model,
        "prompt": each if dialect.several else each[0],
        "max_tokens": limit,
        "temperature": 0,
        "logprobs": 1 if dialect.selects else dialect.top,
    }
    if dialect.extras:
        request |= {"return_tokens_as_token_ids": True, "return_token_ids": limit > 1}
        # A model's own generation config may have another.
        request["repetition_penalty"] = 1.0
        if not dialect.selects:
            # As llama.cpp calls it.
            request["repeat_penalty"] = 1.0
    if dialect.selects and (tokens := sorted(set(chosen))):
        request["logprob_token_ids"] = tokens
    if until is not None and dialect.extras:
        request["skip_special_tokens"] = False
    if until is not None and dialect.selects:
        # Others leave out the text at which they stop, and llama.cpp tokens in front of it as well.
        request |= {"stop": [until], "include_stop_str_in_output": True}
    return request


def groups(dialect: Dialect, choices: Sequence[Tokens]) -> list[list[int]]:
    """Return which prompts to put into one request each, by the tokens that are read there."""
    several = dialect.several
    if dialect.selects:
        several = several and len({*(id_ for each in choices for id_ in each)}) <= _SELECTED
    places = range(len(choices))
    return [[*places]] if several else [[place] for place in places]


def completions(found: Any, prompts: Sequence[Tokens]) -> list[dict[str, Any]]:
    """Return what an answer says to each prompt, in their order.

    Raises:
        GuardOutputError: It is no answer to these prompts.
    """
    given = found.get("choices")
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        raise GuardOutputError("the server's answer has no completions")
    # As texts: whatever else is there instead of a number can be told from one.
    by_place = {repr(each.get("index", 0)): each for each in given}
    if len(given) != len(prompts) or {*by_place} != {*map(repr, range(len(prompts)))}:
        raise GuardOutputError(f"{len(prompts)} prompts got {len(given)} completions")
    read, sent = tokens_read(found), sum(map(len, prompts))
    if read is not None and read != sent:
        # Cut off, or read with another vocabulary.
        raise GuardOutputError(f"the server read {read} tokens of a prompt of {sent}")
    return [by_place[repr(place)] for place in range(len(prompts))]


def tokens_read(found: Any) -> int | None:
    """Return how many tokens of a prompt the server says it read."""
    usage = found.get("usage")
    read = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return read if type(read) is int else None


def written(completion: dict[str, Any]) -> list[int] | str:
    """Return the tokens that a server wrote; as a text where it does not name them.

    Raises:
        GuardOutputError: There is neither.
    """
    given = completion.get("token_ids")
    if isinstance(given, list) and all(type(id_) is int for id_ in given):
        return given
    logprobs = completion.get("logprobs")
    if isinstance(logprobs, dict):
        named = logprobs.get("tokens") or logprobs.get("content") or []
        ids = [_id(each) for each in named] if isinstance(named, list) else []
        if ids and None not in ids:
            return [id_ for id_ in ids if id_ is not None]
    text = completion.get("text")
    if not isinstance(text, str):
        raise GuardOutputError("the server's answer has no text")
    return text


def listed(completion: dict[str, Any]) -> list[tuple[int | str, float]]:
    """Return the tokens listed for the next place, by id or by text, with their log-probabilities.

    Raises:
        GuardOutputError: None are listed.
    """
    logprobs = completion.get("logprobs")
    found: list[tuple[Any, Any]] = []
    if isinstance(logprobs, dict):
        places = logprobs.get("top_logprobs") or logprobs.get("content")
        first = places[0] if isinstance(places, list) and places else None
        if isinstance(first, dict) and isinstance(first.get("top_logprobs"), list):
            # llama.cpp's own server.
            entries = [each for each in first["top_logprobs"] if isinstance(each, dict)]
            found = [(each.get("id", each.get("token")), each.get("logprob")) for each in entries]
        elif isinstance(first, dict):
            ids = [_id(key) for key in first]
            found = [*zip(first if None in ids else ids, first.values(), strict=True)]
    if not found or not all(isinstance(key, int | str) and _number(value) for key, value in found):
        raise GuardOutputError("the server's answer has no log-probabilities")
    return found


def _number(value: object) -> bool:
    # Arithmetic with whole numbers of hundreds of digits raises errors of its own.
    return type(value) is float or (type(value) is int and abs(value) < 1 << 32)


def _id(named: object) -> int | None:
    if isinstance(named, dict):
        id_ = named.get("id")
        return id_ if type(id_) is int else None
    if isinstance(named, str) and named.startswith("token_id:"):
        digits = named.removeprefix("token_id:")
        return int(digits) if digits.isdecimal() and len(digits) < 10 else None
    return None
