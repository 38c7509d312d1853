"""`langchain-safeguard review`: decide about texts that are held for review."""

from __future__ import annotations

import argparse
import json
import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from langchain_safeguard.errors import ConfigurationError
from langchain_safeguard.review.ticket import STATUSES, Ticket
from langchain_safeguard.tables import text_table

if TYPE_CHECKING:
    from langchain_safeguard.review.queue import ReviewQueue

QUEUE = "SAFEGUARD_REVIEW_QUEUE"
_SHOWN = 48
"""How many characters of a text a list shows."""


def add_to(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "review",
        help="decide about texts that are held for review",
        description="Decide about texts that are held for review.",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    def action(name: str, run: Any, help: str, *, ticket: bool = True) -> Any:
        made = actions.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.")
        made.add_argument(
            "--queue", metavar="URL", help=f"an SQLite file or the URL of a database; or ${QUEUE}"
        )
        if ticket:
            made.add_argument("ticket", help="the id")
        made.set_defaults(run=run, verb=name)
        return made

    listed = action("list", _list, "list tickets, the oldest first", ticket=False)
    listed.add_argument(
        "--status", choices=[*STATUSES, "all"], default="open", help="default: %(default)s"
    )
    listed.add_argument("--limit", type=int, default=50, metavar="N", help="default: %(default)s")
    listed.add_argument("--after", metavar="TICKET", help="go on behind this one")
    listed.add_argument("--json", action="store_true", help="print all there is, as JSON lines")
    shown = action("show", _show, "show a ticket with its conversation")
    shown.add_argument("--json", action="store_true", help="print all there is, as JSON")
    for name, help, needed in (
        ("approve", "let the text pass", None),
        ("edit", "put another text in its place", True),
        ("reject", "block the text", False),
        ("respond", "block the text, and answer in its place", True),
    ):
        decided = action(name, _decide, help)
        if needed is not None:
            decided.add_argument(
                "text", nargs=None if needed else "?", help="the text the user gets to see"
            )
        decided.add_argument("--reviewer", metavar="NAME", help="who decides")
        decided.add_argument("--note", metavar="TEXT", help="a note for other reviewers")
    action("export", _export, "print decided tickets as rows that 'evaluate' reads", ticket=False)
    purged = action("purge", _purge, "delete tickets that were decided long ago", ticket=False)
    purged.add_argument(
        "--days", type=float, required=True, metavar="N", help="how long ago at least"
    )


def _queue(arguments: argparse.Namespace) -> ReviewQueue:
    # Imported late: SQLAlchemy is an extra.
    from langchain_safeguard.review.queue import ReviewQueue

    url = arguments.queue if arguments.queue is not None else os.environ.get(QUEUE)
    if url == "":
        raise ConfigurationError(f"the URL of the review queue is empty; see --queue and ${QUEUE}")
    return ReviewQueue(url)


def _list(arguments: argparse.Namespace) -> int:
    status = None if arguments.status == "all" else arguments.status
    tickets = _queue(arguments).list(status, limit=arguments.limit, after=arguments.after)
    if arguments.json:
        for ticket in tickets:
            print(json.dumps(ticket.to_dict()))
    elif tickets:
        head = ["ticket", "since", "side", "score", "categories", "status", "text"]
        print(text_table(head, [*map(_line, tickets)]))
    else:
        print("no tickets")
    return 0


def _line(ticket: Ticket) -> list[str]:
    text = printable(ticket.text, lines=False)
    return [
        ticket.id,
        f"{ticket.created:%Y-%m-%d %H:%M}",
        ticket.side,
        "none" if ticket.score is None else f"{ticket.score:.2f}",
        ", ".join(ticket.categories),
        ticket.status,
        text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}...",
    ]


def _show(arguments: argparse.Namespace) -> int:
    ticket = _queue(arguments).get(arguments.ticket)
    if arguments.json:
        print(json.dumps(ticket.to_dict()))
        return 0
    score = "none" if ticket.score is None else f"{ticket.score:.3f}"
    print(f"ticket {ticket.id}  ({ticket.status}, since {ticket.created:%Y-%m-%d %H:%M:%S} UTC)")
    print(f"{ticket.side}, score {score}, {', '.join(ticket.categories) or 'no category'}")
    print(f"rule {printable(ticket.rule or 'none')}, decision {ticket.decision_id}")
    print(f"allowed: {', '.join(ticket.allowed)}")
    for turn in ticket.conversation.turns:
        print(f"\n[{turn.role}]\n{printable(turn.text)}")
        if turn.unchecked:
            print(f"(not shown: {printable(', '.join(turn.unchecked))})")
    for what, said in (("by", ticket.reviewer), ("reply", ticket.reply), ("note", ticket.note)):
        if said is not None:
            print(f"\n{what}: {printable(said)}")
    return 0


def _decide(arguments: argparse.Namespace) -> int:
    ticket = _queue(arguments).decide(
        arguments.ticket,
        arguments.verb,
        getattr(arguments, "text", None),
        reviewer=arguments.reviewer,
        note=arguments.note,
    )
    print(f"ticket {ticket.id} is {ticket.status}")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from langchain_safeguard.review.export import row_of_ticket

    for ticket in _queue(arguments).decided():
        print(json.dumps(row_of_ticket(ticket)))
    return 0


def _purge(arguments: argparse.Namespace) -> int:
    try:
        older_than = timedelta(days=arguments.days)
    except (OverflowError, ValueError):
        raise ConfigurationError(f"--days {arguments.days}; allowed: days from 0 on") from None
    deleted = _queue(arguments).purge(older_than)
    print(f"{deleted} {'ticket' if deleted == 1 else 'tickets'} deleted")
    return 0


def printable(text: str, *, lines: bool = True) -> str:
    """Return a text that is safe to print: what could steer a terminal is spelled out.

    Args:
        text: Whatever users and models wrote.
        lines: Whether line breaks and tabs stay.
    """
    kept = "\n\t" if lines else ""
    return "".join(
        each if each.isprintable() or each in kept else each.encode("unicode_escape").decode()
        for each in text
    )
