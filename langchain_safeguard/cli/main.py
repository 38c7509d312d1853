"""Parsing the command line, and what is common to all commands: errors, pipes, interrupts."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import TextIO

from langchain_safeguard import __version__
from langchain_safeguard.cli import (
    check,
    download,
    evaluate,
    evaluate_agents,
    guards,
    policy,
    review,
    serve,
)
from langchain_safeguard.errors import ConfigurationError, SafeguardError

FAILED, WRONG_USE, INTERRUPTED, BROKEN_PIPE = 1, 2, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: The arguments; those of the process if left out.

    Returns:
        The exit code.
    """
    _tolerate(sys.stdout)
    _tolerate(sys.stderr)
    try:
        arguments = build_parser().parse_args(argv)
        code: int = _command(arguments)(arguments)
        if sys.stdout is not None:
            # Now, while a reader that went away can still be noticed.
            sys.stdout.flush()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else WRONG_USE
    except SafeguardError as error:
        print(f"langchain-safeguard: {error}", file=sys.stderr)
        return WRONG_USE if isinstance(error, ConfigurationError) else FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Python would complain once more when it closes standard output on the way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    return code


def build_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(
        prog="langchain-safeguard", description="Check texts, policies and guard models."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (check, policy, guards, download, evaluate, evaluate_agents, review, serve):
        module.add_to(commands)
    return parser


def _command(arguments: argparse.Namespace) -> Callable[[argparse.Namespace], int]:
    run: Callable[[argparse.Namespace], int] = arguments.run
    return run


def _tolerate(stream: TextIO) -> None:
    """Let a stream escape what its encoding lacks: a text to check may hold anything."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
