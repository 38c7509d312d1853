"""Prompts as token ids: what users wrote can never become a control token of the guard model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from langchain_safeguard.engines.base import Piece
from langchain_safeguard.errors import GuardError, GuardLoadError

_SURROGATES = re.compile("[\ud800-\udfff]")


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer of transformers from a folder.

    Raises:
        GuardLoadError: It cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:
        if wants_code(error):
            raise GuardLoadError(
                f"the tokenizer in {folder} comes with code of its own, which is never run"
            ) from error
        raise GuardLoadError(f"the tokenizer in {folder} cannot be loaded: {error}") from error


def wants_code(error: Exception) -> bool:
    """Tell whether transformers would have to run code of a checkpoint."""
    return "trust_remote_code" in str(error)


class PromptTokenizer:
    """Turns pieces of a prompt into token ids.

    Args:
        tokenizer: A tokenizer of transformers.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Find the control tokens and how a text begins."""
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder
        self._special = {str(token.content): id_ for id_, token in added.items() if token.special}
        # Gemma's vocabulary has line breaks, spaces (written with a mark that stands for them) and
        # HTML tags as added tokens: ordinary text.
        ordinary = {
            str(token.content): id_
            for id_, token in added.items()
            if not token.content.replace("\u2581", " ").isspace()
        }
        # It stands for what a vocabulary lacks, and says nothing of its own.
        known = partial(_control_in, self._special, ordinary, {tokenizer.unk_token_id})
        self._control = lru_cache(maxsize=64)(known)
        begin = tokenizer("a")["input_ids"][:1]
        self._bos = begin if begin == [tokenizer.bos_token_id] else []
        self._newline = self._plain("\n")
        self.begins = bool(self._bos)
        """Whether a prompt has a token for its beginning."""
        self.eos: frozenset[int] = frozenset(
            {tokenizer.eos_token_id, *map(self._id, _ENDINGS)} - {None, tokenizer.unk_token_id}
        )

    def encode(self, pieces: Sequence[Piece]) -> list[int]:
        """Return the tokens of a prompt, with exactly one token for its beginning.

        Without control tokens in pieces that are not trusted, these are the tokens of the joined
        text. Where there are some, they are read as letters.

        Raises:
            GuardError: The tokenizer makes control tokens of what does not look like any.
        """
        text = "".join(piece.text for piece in pieces)
        pattern, control = self._control("".join(each.text for each in pieces if each.trusted))
        cuts, ours = _cuts(text, pattern, pieces)
        ids = self._plain(text[: cuts[0]] if cuts else text)
        for begin, end in pairwise([*cuts, len(text)]):
            ids += self._inside(text[begin:end])
        if sum(each in control for each in ids) > ours:
            raise GuardError("the tokenizer reads control tokens where a text has none")
        return ids if not self._bos or self._bos[0] in ids[:2] else self._bos + ids

    def after(self, before: str, text: str) -> list[int] | None:
        """Return the tokens of `text` where it follows the trusted text `before`.

        `None` if its beginning melts into one token with the end of `before`, or if the vocabulary
        has no tokens for it.
        """
        begin, whole = self._plain(before), self._plain(before + text)
        if whole[: len(begin)] != begin or len(whole) == len(begin):
            return None
        ids = whole[len(begin) :]
        return None if self._tokenizer.unk_token_id in ids else ids

    def spellings(self, *, spaced: bool = False) -> dict[str, frozenset[int]]:
        """Return the tokens that each text may stand for where a server names tokens by text.

        Args:
            spaced: Whether the server is known to keep the space in front of a word; others may
                cut it off, or write it as the vocabulary does.
        """
        found: dict[str, set[int]] = {}
        ids = range(len(self._tokenizer))
        raw = self._tokenizer.convert_ids_to_tokens([*ids])
        alone = self._tokenizer.batch_decode([[id_] for id_ in ids], skip_special_tokens=False)
        begin = len(self.decode(self._newline))
        behind = self._tokenizer.batch_decode(
            [[*self._newline, id_] for id_ in ids], skip_special_tokens=False
        )
        control = {*self._special.values()}
        for id_, token, text, whole in zip(ids, raw, alone, behind, strict=True):
            names = {whole[begin:]}
            if not spaced:
                names |= {text, str(token), str(token).replace("\u2581", " ")}
            if id_ in control or "\ufffd" in text:
                # Some servers give control tokens, and parts of a character, no name at all.
                names.add("")
            for name in names:
                found.setdefault(name, set()).add(id_)
        return {text: frozenset(which) for text, which in found.items()}

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens that a model wrote, control tokens included."""
        text: str = self._tokenizer.decode(ids, skip_special_tokens=False)
        return text

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Return the characters of each token."""
        found = self._tokenizer(
            _SURROGATES.sub("\ufffd", text), add_special_tokens=False, return_offsets_mapping=True
        )
        return [(int(begin), int(end)) for begin, end in found["offset_mapping"]]

    def _plain(self, text: str) -> list[int]:
        # No tokenizer takes lone surrogates; what replaces them is as long.
        whole = _SURROGATES.sub("\ufffd", text)
        ids: list[int] = self._tokenizer(whole, add_special_tokens=False)["input_ids"]
        return ids

    def _inside(self, text: str) -> list[int]:
        """Encode a text that does not stand at the beginning.

        Some tokenizers put a space in front of a beginning; a line break takes its place.
        """
        ids = self._plain("\n" + text)
        if ids[: len(self._newline)] == self._newline:
            return ids[len(self._newline) :]
        return self._plain(text)

    def _id(self, token: str) -> int | None:
        ids = self._plain(token)
        return ids[0] if len(ids) == 1 and token in self._special else None


def _control_in(
    special: Mapping[str, int], added: Mapping[str, int], unknown: set[int], trusted: str
) -> tuple[re.Pattern[str], frozenset[int]]:
    """Return what control tokens look like in a prompt with such trusted text, and their ids.

    Nothing looks like the pattern if there are none.
    """
    control = {**special, **{token: id_ for token, id_ in added.items() if token in trusted}}
    spelled = sorted(map(re.escape, control), key=len, reverse=True)
    return re.compile("|".join(spelled) or r"(?!)"), frozenset(control.values()) - unknown


def _cuts(text: str, pattern: re.Pattern[str], pieces: Sequence[Piece]) -> tuple[list[int], int]:
    """Return where to cut so that no control token is left that the guard did not write.

    Also returned is how many it did write.
    """
    trusted: list[tuple[int, int]] = []
    at = 0
    for piece in pieces:
        end = at + len(piece.text)
        if piece.trusted and trusted and trusted[-1][1] == at:
            trusted[-1] = (trusted[-1][0], end)
        elif piece.trusted:
            trusted.append((at, end))
        at = end
    cuts, ours, at = [], 0, 0
    while match := pattern.search(text, at):
        if any(begin <= match.start() and match.end() <= end for begin, end in trusted):
            ours += 1
            at = match.end()
            continue
        # After its first letter; what follows could be the beginning of another one.
        at = match.start() + 1
        cuts.append(at)
    return cuts, ours


_ENDINGS = ("<|eot_id|>", "<|eot|>", "<|im_end|>", "<end_of_turn>", "<|end_of_text|>", "<|return|>")
"""Tokens that end an answer in some family, besides the tokenizer's own."""
