"""Prompts for servers that take texts only: sent where it is certain what tokens they make of them.

Such a server reads control tokens in whatever it is sent, also where a user only wrote the letters
of one. So it is asked for its tokens first, and what it would read in another way is not sent.
"""

from __future__ import annotations

from collections.abc import Sequence

from langchain_safeguard.engines.remote.dialect import Tokens
from langchain_safeguard.engines.remote.replica import Refusal, Replica, Trouble
from langchain_safeguard.engines.tokens import PromptTokenizer
from langchain_safeguard.errors import GuardOutputError


async def tokens_of(replica: Replica, model: str, text: str) -> list[int] | None:
    """Return the tokens that a server makes of a text; `None` if it does not say.

    Raises:
        Trouble: It cannot be asked.
    """
    try:
        found = await replica.post("../extras/tokenize", {"model": model, "input": text})
    except Refusal:
        return None
    tokens = found.get("tokens")
    known = isinstance(tokens, list) and all(type(each) is int for each in tokens)
    return tokens if known else None


async def as_texts(
    replica: Replica, model: str, tokenizer: PromptTokenizer, prompts: Sequence[Tokens]
) -> list[str]:
    """Return texts of which a server makes exactly these tokens.

    Raises:
        Trouble: The server does not say what it makes of a text.
        GuardOutputError: It makes other tokens of one.
    """
    found = []
    for ids in prompts:
        # The server puts the token for the beginning there itself.
        text = tokenizer.decode(ids[1:] if tokenizer.begins else ids)
        tokens = await tokens_of(replica, model, text)
        if tokens is None:
            raise Trouble(GuardOutputError(f"{replica.url} does not say any more how it reads"))
        if tokens != [*ids]:
            # The prompt's fault: neither is it asked again, nor is the server less well.
            raise GuardOutputError(
                f"{replica.url} takes texts only, and reads other tokens than the {len(ids)} of "
                "this prompt, in which a control token may be spelled out; servers that take "
                "tokens (vLLM, llama-server) can judge it"
            )
        found.append(text)
    return found
