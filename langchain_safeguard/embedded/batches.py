"""Token ids to padded tensors, as each branch wants them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

WORD_CLS, WORD_SEP = 101, 102
PHRASE_BEGIN, PHRASE_END = 1, 2

Example = tuple[list[int], list[int] | None]
"""Token ids of the judged text, and of its prompt when it answers one."""


def length(example: Example) -> int:
    """Tokens of an example with the special ones."""
    text, prompt = example
    return len(text) + len(prompt or ()) + 3


def length_batches(examples: Sequence[Example], tokens: int) -> list[list[int]]:
    """Indices of examples in batches of similar length, at most `tokens` with padding each."""
    order = sorted(range(len(examples)), key=lambda index: length(examples[index]))
    batches: list[list[int]] = []
    for index in order:
        if not batches or length(examples[index]) * (len(batches[-1]) + 1) > tokens:
            batches.append([])
        batches[-1].append(index)
    return batches


def pad(rows: Sequence[Sequence[int]], fill: int = 0) -> tuple[Tensor, Tensor]:
    """Pad to the longest: ids (B, T) int64 and mask (B, T) bool."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), fill, dtype=torch.int64)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row, dtype=torch.int64)
        mask[index, : len(row)] = True
    return ids, mask


def word_batch(examples: Sequence[Example]) -> dict[str, Tensor]:
    """`[CLS] text [SEP]` or `[CLS] prompt [SEP] text [SEP]`, the text in segment 1 then."""
    rows, starts = [], []
    for text, prompt in examples:
        head = [WORD_CLS] if prompt is None else [WORD_CLS, *prompt, WORD_SEP]
        rows.append([*head, *text, WORD_SEP])
        starts.append(len(head))
    ids, mask = pad(rows)
    place = torch.arange(ids.shape[1])
    judged = mask & (place >= torch.tensor(starts)[:, None])
    answers = torch.tensor([prompt is not None for _, prompt in examples])[:, None]
    return {"ids": ids, "segments": (judged & answers).long(), "mask": mask, "judged": judged}


def phrase_batch(examples: Sequence[Example]) -> dict[str, Tensor | None]:
    """Text and prompt each between a begin and an end piece; no prompt is an empty row."""
    ids, mask = pad([[PHRASE_BEGIN, *text, PHRASE_END] for text, _ in examples])
    prompts = [
        [] if prompt is None else [PHRASE_BEGIN, *prompt, PHRASE_END] for _, prompt in examples
    ]
    if not any(prompts):
        return {"ids": ids, "mask": mask, "prompt_ids": None, "prompt_mask": None}
    prompt_ids, prompt_mask = pad(prompts)
    return {"ids": ids, "mask": mask, "prompt_ids": prompt_ids, "prompt_mask": prompt_mask}
