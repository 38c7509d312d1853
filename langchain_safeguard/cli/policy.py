"""`langchain-safeguard policy`: look at a policy, or find what is wrong with it."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from langchain_safeguard.errors import ConfigurationError
from langchain_safeguard.policy import Policy, Rule
from langchain_safeguard.tables import text_table
from langchain_safeguard.taxonomy import SIDES, Category

INVALID = 1


def add_to(commands: Any) -> None:
    """Describe the command and its two parts."""
    parser = commands.add_parser("policy", help="show or validate a policy")
    parts = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    show = parts.add_parser("show", help="print a policy as a table")
    show.add_argument(
        "file", nargs="?", metavar="FILE", help="a YAML file (default: the default policy)"
    )
    show.set_defaults(run=run_show)
    validate = parts.add_parser(
        "validate",
        help="say OK, or what is wrong and where",
        description="Say OK, or name the line that is wrong, and exit with 1.",
    )
    validate.add_argument("file", metavar="FILE", help="a YAML file")
    validate.add_argument(
        "--guard", help="also check that this guard can report what the rules name"
    )
    validate.set_defaults(run=run_validate)


def run_show(arguments: argparse.Namespace) -> int:
    """Print a policy."""
    file = arguments.file
    policy = Policy.default_policy() if file is None else Policy.from_file(file)
    rest = [f"{policy.default.value} from {policy.threshold:g}", ""]
    rows = [_rule(rule, policy) for rule in policy.rules]
    rows.append(["(default)", "all others", "all", *rest])
    print(f"policy {policy.name}: for each hazard the first rule that names it, the strictest wins")
    print()
    print(text_table(["rule", "categories", "sides", "action", "message"], rows, widest=44))
    print()
    print(f"a guard could not judge:  {policy.on_failure.value}")
    print(f"a part was not checked:   {policy.on_unchecked.value}")
    print(f"refusal, if no message:   {policy.message}")
    return 0


def run_validate(arguments: argparse.Namespace) -> int:
    """Say whether a policy is right."""
    try:
        policy = Policy.from_file(arguments.file)
        if arguments.guard is not None:
            _check_guard(policy, arguments.guard)
    except ConfigurationError as error:
        print(f"langchain-safeguard: {error}", file=sys.stderr)
        return INVALID
    print(f"OK: {arguments.file} ({len(policy.rules)} rules)")
    return 0


def _check_guard(policy: Policy, name: str) -> None:
    from langchain_safeguard.loading import load_guard

    guard = load_guard(name)
    reported = {*guard.categories, Category.OTHER}
    for rule, category in policy.unreported(reported):
        raise ConfigurationError(
            f"rule {rule.name!r} names {category.value!r}, which {guard.name} never reports; "
            f"allowed: {', '.join(sorted(reported))}"
        )


def _rule(rule: Rule, policy: Policy) -> list[str]:
    actions = sorted(rule.thresholds.items(), key=lambda item: item[0].severity)
    return [
        rule.name,
        "all" if rule.categories is None else ", ".join(sorted(rule.categories)),
        "all" if rule.sides == set(SIDES) else ", ".join(s for s in SIDES if s in rule.sides),
        ", ".join(
            f"{action.value} from {policy.threshold if score is None else score:g}"
            for action, score in actions
        ),
        rule.message or "",
    ]
