"""`langchain-safeguard evaluate`: measure a guard on labelled rows."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from langchain_safeguard.errors import ConfigurationError


def add_to(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "evaluate",
        help="measure a guard on labelled rows",
        description="Measure a guard on files of labelled rows: JSON lines or CSV, plain or "
        "gzipped, with 'text' and 'unsafe' in each row.",
    )
    parser.add_argument(
        "--guard", default="embedded", help="a name or a folder (default: %(default)s)"
    )
    parser.add_argument(
        "--data", nargs="+", required=True, metavar="FILE", help="the files", action="extend"
    )
    parser.add_argument(
        "--threshold", type=float, default=0.5, help="called unsafe from here (default: 0.5)"
    )
    parser.add_argument(
        "--batch-size", type=_positive, default=32, metavar="N", help="rows at a time (default: 32)"
    )
    parser.add_argument(
        "--latency-rows",
        type=int,
        default=50,
        metavar="N",
        help="rows of each file that are timed alone (default: 50; 0: none)",
    )
    parser.add_argument("--json", metavar="OUT", help="also write the figures to this file")
    parser.add_argument("--markdown", action="store_true", help="print a table in Markdown")
    parser.add_argument("--quiet", action="store_true", help="show no progress bar")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    # Imported late: `--help` needs neither scikit-learn nor torch.
    from langchain_safeguard.evaluation.run import evaluate

    if arguments.json is not None:
        write_json(arguments.json, "")  # A typo in the path should not cost an hour.
    with failures_unlogged():
        report = evaluate(
            arguments.guard,
            arguments.data,
            threshold=arguments.threshold,
            batch_size=arguments.batch_size,
            latency_rows=arguments.latency_rows,
            progress=not arguments.quiet,
        )
    if arguments.json is not None:
        write_json(
            arguments.json, json.dumps(report.to_dict(), ensure_ascii=False, indent=2) + "\n"
        )
    print(report.markdown() if arguments.markdown else report.text())
    return 0


@contextlib.contextmanager
def failures_unlogged() -> Iterator[None]:
    """Rows that cannot be judged are counted in the report; a line for each would bury it."""
    logger = logging.getLogger("langchain_safeguard")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def write_json(path: str, text: str) -> None:
    """Write the file that `--json` names."""
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"--json {path}: {error.strerror or error}") from error


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not at least 1")
    return number
