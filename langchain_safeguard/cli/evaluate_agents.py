"""`langchain-safeguard evaluate-agents`: measure a guard on attacks through tools' results."""

from __future__ import annotations

import argparse
import json
from typing import Any

from langchain_safeguard.cli.evaluate import failures_unlogged, write_json


def add_to(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "evaluate-agents",
        help="measure a guard on agents that are attacked through their tools' results",
        description="Let an agent that obeys whatever it reads do its tasks while results of its "
        "tools hold injections, guarded in several ways, and report what was done.",
    )
    parser.add_argument(
        "--guard", default="embedded", help="a name or a folder (default: %(default)s)"
    )
    parser.add_argument(
        "--policy", metavar="FILE", help="a policy in YAML (default: the default policy)"
    )
    parser.add_argument(
        "--cases", metavar="FILE", help="cases as JSON lines (default: those in the package)"
    )
    parser.add_argument(
        "--defenses",
        nargs="+",
        action="extend",
        metavar="NAME",
        help="what to compare: none, results, results-rewrite, tools, full, full-rewrite "
        "(default: all)",
    )
    parser.add_argument(
        "--thresholds",
        nargs="+",
        type=float,
        action="extend",
        default=[],
        metavar="T",
        help="run each defense with each of these in place of the policy's threshold",
    )
    parser.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help="attacked cases to run, chosen at random (default: 400; 0: all)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="chooses them (default: %(default)s)"
    )
    parser.add_argument("--json", metavar="OUT", help="also write all figures to this file")
    parser.add_argument("--markdown", action="store_true", help="print a table in Markdown")
    parser.add_argument("--quiet", action="store_true", help="show no progress bar")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    # Imported late: `--help` needs neither langchain nor torch.
    from langchain_safeguard.evaluation.agent_attacks import DEFENSES, evaluate_agents
    from langchain_safeguard.evaluation.agent_attacks.case_file import BUILTIN
    from langchain_safeguard.evaluation.agent_attacks.run import LIMIT

    if arguments.json is not None:
        write_json(arguments.json, "")  # A typo in the path should not cost the whole run.
    with failures_unlogged():
        report = evaluate_agents(
            arguments.guard,
            arguments.cases or BUILTIN,
            policy=arguments.policy,
            defenses=arguments.defenses or tuple(DEFENSES),
            thresholds=arguments.thresholds,
            limit=LIMIT if arguments.limit is None else arguments.limit,
            seed=arguments.seed,
            progress=not arguments.quiet,
        )
    if arguments.json is not None:
        text = json.dumps(report.to_dict(), ensure_ascii=False, indent=2)
        write_json(arguments.json, text + "\n")
    print(report.markdown() if arguments.markdown else report.text())
    return 0
