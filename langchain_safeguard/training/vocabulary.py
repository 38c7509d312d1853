"""Which of the multilingual encoder's 128,000 pieces are kept.

All Hangul, what the training rows use, pieces that are English words, and single characters of
every script that turns up. What is left out is spelled with shorter pieces: nothing becomes
unreadable, and three quarters of the table are saved.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

import torch
from tokenizers import Tokenizer
from torch import Tensor

from langchain_safeguard.training.rows import Row

_SPECIAL = 3
_RESERVED = frozenset({"extra_token_id_1", "extra_token_id_2", "extra_token_id_3"})
_RARE_SCRIPTS = frozenset({"CJK", "THAI", "ARABIC"})
_TEXT, _PROMPT = 3000, 1000


def choose_pieces(
    pieces: Sequence[tuple[str, float]],
    tokenizer: Tokenizer,
    rows: Sequence[Row],
    english: frozenset[str],
) -> Tensor:
    """Ids of the pieces to keep, ascending, int64.

    Args:
        pieces: All pieces with their scores.
        tokenizer: Cuts text into all of them.
        rows: Training rows, whose use of pieces is counted.
        english: An English vocabulary, lower case, with or without `##`.
    """
    texts = [row.text[:_TEXT] for row in rows]
    texts += [row.prompt[:_PROMPT] for row in rows if row.prompt]
    used: Counter[int] = Counter()
    for start in range(0, len(texts), 4096):
        for encoding in tokenizer.encode_batch(texts[start : start + 4096]):
            used.update(encoding.ids)
    kept = [
        number
        for number, (piece, _) in enumerate(pieces)
        if number < _SPECIAL or _wanted(piece, used[number], english)
    ]
    return torch.tensor(kept)


def _wanted(piece: str, uses: int, english: frozenset[str]) -> bool:
    body = piece.replace("\u2581", "")
    if piece in _RESERVED:
        return False
    scripts = {unicodedata.name(sign, "?").split()[0] for sign in body if sign.isalpha()}
    if len(body) <= 1:
        return uses > 0 or not scripts <= _RARE_SCRIPTS or not scripts
    if "HANGUL" in scripts:
        return True
    if not scripts:
        return uses > 0
    lower = body.lower()
    known = body.isascii() and (lower in english or f"##{lower}" in english)
    return scripts == {"LATIN"} and (uses > 1 or known)
