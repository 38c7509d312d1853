"""How fast the embedded guard is: latency, load time, and DeBERTa-v3-base for comparison.

    python tests/benchmarks/embedded_speed.py [--threads 1] [--runs 15]

Both models are timed in one process, turn by turn, so that whatever else the machine does meets
both; the medians are compared. DeBERTa has random weights: time does not depend on them.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

from langchain_safeguard.embedded import EmbeddedClassifier, Passage

WORDS = [
    "the",
    "a",
    "my",
    "our",
    "garden",
    "window",
    "letter",
    "train",
    "coffee",
    "market",
    "river",
    "answer",
    "question",
    "machine",
    "bread",
    "please",
    "could",
    "would",
    "explain",
    "describe",
    "write",
    "open",
    "carry",
    "follow",
    "morning",
    "winter",
    "green",
    "quiet",
    "because",
    "although",
    "before",
    "after",
    "with",
    "without",
    "between",
    "over",
    "under",
    "about",
]


def text_of(tokens: int, seed: int) -> str:
    """A new text of about `tokens` tokens; new, because the classifier remembers what it saw."""
    rng = random.Random(seed)
    return " ".join(rng.choice(WORDS) for _ in range(tokens))


def deberta() -> torch.nn.Module:
    """A classifier in the shape of DeBERTa-v3-base: 12 layers of width 768."""
    shape: dict[str, Any] = {
        "vocab_size": 128_100,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "type_vocab_size": 0,
        "relative_attention": True,
        "position_buckets": 256,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "max_relative_positions": -1,
        "max_position_embeddings": 512,
        "num_labels": 2,
    }
    model: torch.nn.Module = DebertaV2ForSequenceClassification(DebertaV2Config(**shape))
    return model.train(False)


def milliseconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1e3


def compare(tokens: int, runs: int, guard: EmbeddedClassifier, rival: torch.nn.Module) -> None:
    """Time both on texts of `tokens` tokens and print the medians and their ratio."""
    ours, theirs, ratios = [], [], []
    for run in range(runs + 2):
        passage = Passage(text_of(tokens, seed=1000 * tokens + run))
        ids = torch.randint(1000, 100_000, (1, tokens))
        mine = milliseconds(lambda passage=passage: guard.score([passage]))  # type: ignore[misc]
        with torch.inference_mode():
            other = milliseconds(lambda ids=ids: rival(input_ids=ids))  # type: ignore[misc]
        if run >= 2:  # the first two warm up
            ours.append(mine)
            theirs.append(other)
            ratios.append(other / mine)
    print(
        f"{tokens:4d} tokens: embedded {statistics.median(ours):6.1f} ms, "
        f"DeBERTa-v3-base shape {statistics.median(theirs):7.1f} ms, "
        f"ratio {statistics.median(ratios):.1f}"
    )


def load_seconds() -> float:
    """Seconds to load the guard in a fresh process, after torch is imported."""
    code = (
        "import time, torch; from langchain_safeguard.embedded import EmbeddedClassifier\n"
        "began = time.perf_counter(); EmbeddedClassifier.load(); print(time.perf_counter() - began)"
    )
    found = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
        for _ in range(3)
    ]
    return statistics.median(found)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description="Time the embedded guard.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=15)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(f"torch {torch.__version__}, {given.threads} thread(s)")
    print(f"load: {load_seconds():.2f} s beyond importing torch")
    guard, rival = EmbeddedClassifier.load(), deberta()
    for tokens in (60, 250):
        compare(tokens, given.runs, guard, rival)


if __name__ == "__main__":
    main()
