"""`langchain-safeguard check`: decide about one text, or about each row of a file."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from langchain_safeguard.conversation import Conversation, Turn
from langchain_safeguard.decision import Decision
from langchain_safeguard.errors import ConfigurationError
from langchain_safeguard.policy import Policy
from langchain_safeguard.tables import text_table
from langchain_safeguard.taxonomy import SIDES, Side

if TYPE_CHECKING:
    from langchain_safeguard.bulk import Summary

NOT_ALLOWED = 3
_SHOWN = 5
"""How many findings the readable form lists."""


def add_to(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "check",
        help="decide about one text, or about each row of a file",
        description="Decide about one text. Exits with 0 if it passes, with 3 if it does not. With "
        "--out, decide about each row of a file of JSON lines, CSV or Parquet, of any size; run it "
        "again after it was stopped, and it goes on.",
    )
    parser.add_argument(
        "text",
        nargs="?",
        default="-",
        metavar="TEXT",
        help="the text; '-' or nothing: from stdin; with --out: the file",
    )
    parser.add_argument(
        "--side", choices=SIDES, default="input", help="who wrote it (default: %(default)s)"
    )
    parser.add_argument(
        "--prompt", metavar="TEXT", help="what it answers; with a --side other than input"
    )
    parser.add_argument("--guard", help="a name or a folder (default: the embedded guard)")
    parser.add_argument(
        "--policy", metavar="FILE", help="a YAML file (default: the default policy)"
    )
    parser.add_argument("--json", action="store_true", help="print all there is, as JSON")
    rows = parser.add_argument_group("files of rows")
    rows.add_argument("--out", metavar="FILE", help="the file to write, in the same format")
    rows.add_argument("--text-column", metavar="NAME", default="text", help="default: %(default)s")
    rows.add_argument("--prompt-column", metavar="NAME", help="what the texts answer, if they do")
    rows.add_argument("--batch-size", type=int, default=64, metavar="N", help="default: 64")
    rows.add_argument("--overwrite", action="store_true", help="begin anew, whatever is there")
    rows.add_argument("--quiet", action="store_true", help="show no progress bar")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Decide, print, and tell by the exit code."""
    return _check_text(arguments) if arguments.out is None else _check_file(arguments)


def _check_file(arguments: argparse.Namespace) -> int:
    from langchain_safeguard.bulk import check_file

    if arguments.prompt is not None or arguments.json or arguments.text == "-":
        raise ConfigurationError("--out needs a FILE to read, and neither --prompt nor --json")
    try:
        done = check_file(
            arguments.text,
            arguments.out,
            guard=arguments.guard,
            policy=arguments.policy,
            side=arguments.side,
            text_column=arguments.text_column,
            prompt_column=arguments.prompt_column,
            batch_size=arguments.batch_size,
            overwrite=arguments.overwrite,
            progress=not arguments.quiet,
        )
    except KeyboardInterrupt:
        print("stopped; run it again, without --overwrite, to go on", file=sys.stderr)
        raise
    print(f"{done.rows} rows in {arguments.out}" + _counted(done))
    return 0


def _counted(done: Summary) -> str:
    counts = [f"{action} {count}" for action, count in sorted(done.actions.items())]
    if done.failed:
        counts.append(f"not judged {done.failed}")
    if done.resumed:
        counts.append(f"done before {done.resumed}")
    return f" ({', '.join(counts)})" if counts else ""


def _check_text(arguments: argparse.Namespace) -> int:
    # Imported late: building a guard imports torch, and `--help` need not wait for that.
    from langchain_safeguard.safeguard import Safeguard

    side: Side = arguments.side
    if arguments.prompt is not None and side == "input":
        raise ConfigurationError("--prompt is what a text answers; use it with --side output")
    text = _standard_input() if arguments.text == "-" else arguments.text
    turns = Conversation.of(text, side).turns
    if arguments.prompt is not None:
        turns = (Turn("user", arguments.prompt), *turns)
    # Before the guard, which takes seconds to load.
    policy = None if arguments.policy is None else Policy.from_file(arguments.policy)
    safeguard = Safeguard(arguments.guard, policy)
    decision = safeguard.check(Conversation(turns), side=side)
    print(_json(decision) if arguments.json else _readable(decision))
    return 0 if decision.passes else NOT_ALLOWED


def _standard_input() -> str:
    if sys.stdin is None or sys.stdin.isatty():
        raise ConfigurationError("no text: give it as an argument or on standard input")
    # Bytes that are no text are kept, as Python keeps those of arguments: a guard must see that
    # something is odd.
    return sys.stdin.buffer.read().decode("utf-8", "surrogateescape")


def _json(decision: Decision) -> str:
    verdicts = [asdict(verdict) for verdict in decision.verdicts]
    return json.dumps(
        {**decision.summary(), "text": decision.text, "verdicts": verdicts}, ensure_ascii=False
    )


def _readable(decision: Decision) -> str:
    score = "none" if decision.score is None else f"{decision.score:.3f}"
    lines = [
        f"{decision.action.value}  ({decision.side}, score {score}, "
        f"rule {decision.rule or 'none'}, decision {decision.decision_id})"
    ]
    if decision.unchecked:
        lines.append(f"not checked: {', '.join(decision.unchecked)}")
    lines += [
        f"{verdict.guard} could not judge: {verdict.reason or 'no reason given'}"
        for verdict in decision.verdicts
        if verdict.failed
    ]
    lines += [
        f"{verdict.guard} did not see the first {verdict.dropped_turns} turns"
        for verdict in decision.verdicts
        if verdict.dropped_turns
    ]
    lines += [
        f"{verdict.guard} says: {verdict.explanation}"
        for verdict in decision.verdicts
        if verdict.explanation
    ]
    findings = [
        [
            finding.category.value,
            finding.code or "",
            "none" if finding.score is None else f"{finding.score:.3f}",
            "yes" if finding.category.value in decision.categories else "",
            verdict.guard,
        ]
        for verdict in decision.verdicts
        for finding in verdict.findings[:_SHOWN]
    ]
    if findings:
        lines += ["", text_table(["category", "code", "score", "fired", "guard"], findings)]
    if not decision.passes:
        lines += ["", decision.text]
    return "\n".join(lines)
