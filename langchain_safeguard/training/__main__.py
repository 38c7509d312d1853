"""Train the embedded guard on labelled rows.

    python -m langchain_safeguard.training --data DIR --out DIR

`DIR` holds gzip or plain JSON lines with the fields of `rows.Row`. On two cores the defaults take
about two hours; run it again with the same folders to go on after an interruption. The result,
`OUT/weights`, is what `EmbeddedClassifier.load` takes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from langchain_safeguard.training.pipeline import Pipeline, Plan


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m langchain_safeguard.training", description="Train the embedded guard."
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled rows")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and result")
    parser.add_argument(
        "--word-rows", type=int, default=Plan.word_rows, help="rows the word branch sees"
    )
    parser.add_argument(
        "--phrase-rows", type=int, default=Plan.phrase_rows, help="rows the phrase branch sees"
    )
    parser.add_argument("--no-prose", action="store_true", help="leave out the project's own prose")
    parser.add_argument("--seed", type=int, default=Plan.seed)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, 0 for torch's choice")
    return parser


def main() -> None:
    """Run all stages that are not done yet."""
    given = arguments().parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    plan = Plan(
        data=given.data,
        out=given.out,
        word_rows=given.word_rows,
        phrase_rows=given.phrase_rows,
        prose=not given.no_prose,
        seed=given.seed,
    )
    checksum = Pipeline(plan).run()
    print(f"wrote {plan.out / 'weights'}, sha256 {checksum}")


if __name__ == "__main__":
    main()
