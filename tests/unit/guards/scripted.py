"""A language model that says one thing, behind a real tokenizer and the real engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from langchain_safeguard.conversation import Conversation
from langchain_safeguard.engines import Completion
from langchain_safeguard.engines.causal import CausalEngine
from langchain_safeguard.engines.next_token import Context
from langchain_safeguard.engines.tokens import PromptTokenizer
from langchain_safeguard.guards import LanguageFamily
from langchain_safeguard.taxonomy import Side
from langchain_safeguard.verdict import Verdict
from tests.tokenizers import tokenizer

SURE = 12.0
"""The logit of the token that comes next; that of all others is 0."""


class Script:
    """Goes on with a text as long as what it is asked about begins like it; else it ends.

    What it is sure of is the way in which the tokenizer itself would write prompt and text: a
    forced answer that is cut into tokens in another way meets a model that knows nothing.
    """

    def __init__(self, real: Any, prompt: str, text: str) -> None:
        self.real = real
        ids = self.real(prompt + text, add_special_tokens=False)["input_ids"]
        self.vocabulary = len(self.real)
        self.eos = self.real.eos_token_id
        begin = self.real("a")["input_ids"][:1]
        has_begin = begin == [self.real.bos_token_id] and begin[0] not in ids[:2]
        self.ids: list[int] = [*(begin if has_begin else []), *ids]

    def logits(self, contexts: Sequence[Context]) -> list[torch.Tensor]:
        return [self._after(context) for context in contexts]

    def _after(self, context: Context) -> torch.Tensor:
        asked = list(context.ids)
        on_script = asked == self.ids[: len(asked)] and len(asked) < len(self.ids)
        following = self.ids[len(asked)] if on_script else self.eos
        row = torch.zeros(self.vocabulary)
        row[following] = SURE
        return row if context.choices is None else row[list(context.choices)]


def said(
    family: LanguageFamily, real: Any, conversation: Conversation, side: Side, text: str
) -> Verdict:
    """Return the verdict on a conversation of a model with a tokenizer, if it says that text.

    The tokenizer may be the name of one of `tests.tokenizers`.
    """
    prompts = family.render(conversation, side)
    script = Script(tokenizer(real) if isinstance(real, str) else real, prompts[0].text, text)
    engine = CausalEngine(script, PromptTokenizer(script.real), limit=8192, name="scripted")
    return family.read(engine.run(prompts), side)


def written(family: LanguageFamily, text: str, side: Side = "input", questions: int = 1) -> Verdict:
    """Return the verdict where nothing but a text is known of the answer."""
    return family.read([Completion(text=text)] * questions, side)
