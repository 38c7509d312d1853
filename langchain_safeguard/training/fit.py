"""Fine-tuning one branch: resumable, seeded, with a progress line.

Rows are drawn epoch by epoch from the mixture, cut into chunks, and each chunk is sorted by length
into batches of about equal numbers of tokens, so that little is spent on padding.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from langchain_safeguard.embedded.labels import HARM_CATEGORIES, OUTPUTS
from langchain_safeguard.embedded.normalize import normalize
from langchain_safeguard.training import mixture
from langchain_safeguard.training.augment import Augmenter
from langchain_safeguard.training.encode import Batcher, Example, ids_of, shorten
from langchain_safeguard.training.rows import Row, targets


@dataclass(frozen=True, slots=True)
class FitSettings:
    """How one branch is fitted. `rows` is the number of rows seen in all."""

    rows: int
    rate: float
    head_rate: float
    tokens: int = 2048
    limit: int = 192
    prompt_limit: int = 64
    warmup: float = 0.05
    seed: int = 7
    save_every: float = 120.0


def label_weights() -> Tensor:
    """Weight of each output in the loss: harm first, the twenty categories share as much."""
    weights = torch.full((len(OUTPUTS),), 1.0 / len(HARM_CATEGORIES))
    weights[0] = 1.0
    weights[-2:] = 0.5
    return weights


def loss_of(logits: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """Masked binary cross-entropy with a little smoothing; shapes (B, L), result a scalar."""
    smooth = truth * 0.96 + 0.02
    loss = functional.binary_cross_entropy_with_logits(logits, smooth, reduction="none")
    return (loss * known * label_weights()).sum(1).mean()


def cut_batches(lengths: Sequence[int], tokens: int, rng: random.Random) -> list[list[int]]:
    """Indices grouped by similar length, each group padded to at most `tokens`; groups shuffled."""
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    batches: list[list[int]] = [[]]
    for index in order:
        if batches[-1] and lengths[index] * (len(batches[-1]) + 1) > tokens:
            batches.append([])
        batches[-1].append(index)
    rng.shuffle(batches)
    return batches


def draw(rows: Sequence[Row], settings: FitSettings, chunk: int = 1500) -> Iterator[list[int]]:
    """Chunks of row indices, epoch after epoch, always the same for one seed."""
    number = 0
    while True:
        order = mixture.epoch(rows, settings.seed + number)
        for start in range(0, len(order), chunk):
            yield order[start : start + chunk]
        number += 1


def _optimizers(branch: nn.Module, settings: FitSettings) -> list[torch.optim.Optimizer]:
    tables = [m for m in branch.modules() if isinstance(m, nn.Embedding) and m.sparse]
    sparse = [parameter for table in tables for parameter in table.parameters()]
    skip = {id(p) for p in sparse}
    body: list[nn.Parameter] = []
    head: list[nn.Parameter] = []
    for name, parameter in branch.named_parameters():
        if parameter.requires_grad and id(parameter) not in skip:
            (body if name.startswith("encoder.") else head).append(parameter)
    groups = [
        {"params": body, "lr": settings.rate, "peak": settings.rate},
        {"params": head, "lr": settings.head_rate, "peak": settings.head_rate},
    ]
    found: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, weight_decay=0.01, fused=True)]
    if sparse:
        # Half the rate: rare pieces get few updates and must not wander off.
        rate = settings.rate / 2
        found.append(torch.optim.SparseAdam([{"params": sparse, "lr": rate, "peak": rate}]))
    return found


class Fitter:
    """Fits a branch on rows and leaves checkpoints in `path`."""

    def __init__(
        self,
        branch: nn.Module,
        tokenizer: Tokenizer,
        batcher: Batcher,
        rows: Sequence[Row],
        settings: FitSettings,
        path: Path,
    ) -> None:
        self.branch, self.tokenizer, self.batcher = branch, tokenizer, batcher
        self.rows, self.settings, self.path = rows, settings, path
        self.truth, self.known = (torch.from_numpy(part) for part in targets(rows))
        self.augmenter = Augmenter(rows)
        self.optimizers = _optimizers(branch, settings)
        self.seen = 0

    def example(self, index: int, rng: random.Random) -> Example:
        """Tokens of one row, varied and cut."""
        row = self.rows[index]
        ids = ids_of(self.tokenizer, normalize(self.augmenter.text(row, rng)))
        ids = shorten(ids, self.settings.limit, row.unsafe, rng) or [0]
        if row.side != "output":
            return ids, None
        prompt = ids_of(self.tokenizer, normalize(row.prompt or ""))
        return ids, prompt[-self.settings.prompt_limit :]

    def resume(self) -> None:
        """Go on from the checkpoint in `path`, if there is one."""
        if self.path.exists():
            saved = torch.load(self.path, weights_only=True)
            self.branch.load_state_dict(saved["branch"])
            for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
                optimizer.load_state_dict(state)
            self.seen = int(saved["seen"])

    def save(self) -> None:
        """Write the checkpoint, replacing the last one in one step."""
        part = self.path.with_suffix(".part")
        torch.save(
            {
                "branch": self.branch.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                "seen": self.seen,
            },
            part,
        )
        part.replace(self.path)

    def run(self) -> None:
        """Train until `settings.rows` rows were seen."""
        self.branch.train()
        done, saved, losses, began, first = 0, time.monotonic(), [0.0], time.monotonic(), self.seen
        for chunk in draw(self.rows, self.settings):
            done += len(chunk)
            if done <= self.seen:
                continue
            if self.seen >= self.settings.rows:
                break
            rng = random.Random(self.settings.seed * 1_000_003 + done)
            torch.manual_seed(done)
            losses = self._chunk(chunk, rng)
            self.seen = done
            pace = (self.seen - first) / (time.monotonic() - began)
            print(
                f"{self.path.stem}: {self.seen}/{self.settings.rows} rows, "
                f"loss {np.mean(losses):.4f}, {pace:.0f} rows/s",
                flush=True,
            )
            if time.monotonic() - saved > self.settings.save_every:
                self.save()
                saved = time.monotonic()
        self.save()

    def _chunk(self, chunk: list[int], rng: random.Random) -> list[float]:
        examples = [self.example(index, rng) for index in chunk]
        lengths = [len(text) + len(prompt or ()) + 3 for text, prompt in examples]
        losses, start = [], self.seen
        batches = cut_batches(lengths, self.settings.tokens, rng)
        for number, batch in enumerate(batches):
            self._rates(start + len(chunk) * number / len(batches))
            picked = torch.tensor([chunk[index] for index in batch])
            logits = self.branch(**self.batcher([examples[index] for index in batch]))
            loss = loss_of(logits, self.truth[picked], self.known[picked])
            # Rows, not batches, count the same: batches of long rows are small.
            (loss * (len(batch) / 32)).clamp(max=50).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self._dense(), 1.0)
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            losses.append(float(loss.detach()))
        return losses

    def _dense(self) -> list[nn.Parameter]:
        found = [p for p in self.branch.parameters() if p.grad is not None]
        return [p for p in found if p.grad is not None and not p.grad.is_sparse]

    def _rates(self, seen: float) -> None:
        """Linear warm-up, then linear decay to a fiftieth."""
        part = min(1.0, seen / self.settings.rows)
        warm = self.settings.warmup
        factor = part / warm if part < warm else max(0.02, (1 - part) / (1 - warm))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * max(factor, 0.01)
