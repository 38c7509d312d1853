"""`langchain-safeguard download`: fetch a guard model ahead of its first use."""

from __future__ import annotations

import argparse
from typing import Any


def add_to(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "download",
        help="fetch a guard model ahead of its first use",
        description="Fetch a guard model into the cache of the Hugging Face hub.",
    )
    parser.add_argument("id", metavar="ID", help="a hub id, such as meta-llama/LlamaGuard-7b")
    parser.add_argument("--revision", help="a branch, a tag or a commit")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Fetch it, with the base model if it is an adapter, and say where it lies."""
    # Imported late: it imports torch's neighbours, and `--help` need not wait for that.
    from langchain_safeguard.folders import fetch

    for folder in fetch(arguments.id, arguments.revision):
        print(folder)
    return 0
