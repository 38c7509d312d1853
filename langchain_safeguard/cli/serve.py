"""`langchain-safeguard serve`: check texts over HTTP."""

from __future__ import annotations

import argparse
import os
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from langchain_safeguard.errors import ConfigurationError
from langchain_safeguard.server.settings import KEYS_VARIABLE, Limits

if TYPE_CHECKING:
    from fastapi import APIRouter

    from langchain_safeguard.escalation import HumanReview

_LEVELS = ("debug", "info", "warning", "error")
_PREFIX = "LANGCHAIN_SAFEGUARD_"
LIMITS = {
    "--max-body-bytes": ("body_bytes", "bytes in a request's body"),
    "--max-buffered-bytes": ("buffered_bytes", "bytes of bodies that are being received"),
    "--max-texts": ("texts", "texts, or messages, in a request"),
    "--max-characters": ("characters", "characters in the texts of a request together"),
    "--max-requests": ("requests", "requests checked at once; no queue, the others get 503"),
    "--max-connections": ("connections", "open connections; the others get 503"),
    "--head-seconds": ("head_seconds", "for a client to send a request's headers"),
    "--body-seconds": ("body_seconds", "for a client to send a request's body"),
    "--guard-seconds": ("guard_seconds", "for a guard's verdict; then on_failure decides"),
    "--request-seconds": ("request_seconds", "for a request in all, from its body on; then 503"),
}
"""From option to the field of `Limits`."""


def add_to(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "serve",
        help="check texts over HTTP, as OpenAI's moderation endpoint does",
        description="Serve POST /v1/moderations (as in OpenAI's API) and POST /v1/guard (whole "
        "decisions), a page at / to try them, /openapi.json, /healthz, /readyz and /metrics. "
        "SIGTERM ends it after the requests it has accepted; SIGHUP, or a changed file, reloads "
        "the policies.",
        epilog="Limits and URLs can come from the environment as well: --max-texts from "
        f"{_PREFIX}MAX_TEXTS, and so on. A URL with a password belongs there: everybody "
        "on a machine sees the options of its processes.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    parser.add_argument("--port", type=int, default=8000, help="default: %(default)s")
    parser.add_argument(
        "--guard",
        action="append",
        metavar="NAME",
        help="a guard's name or folder; several judge together (default: the embedded guard)",
    )
    parser.add_argument(
        "--policy",
        action="append",
        metavar="[NAME=]FILE",
        help="a YAML file, or a folder of them; the one called 'default' or the first is used "
        "unless a request names another (default: the default policy)",
    )
    parser.add_argument(
        "--review-queue",
        default=_environment("--review-queue", None),
        metavar="URL",
        help="a database in which texts wait for a person when the policy escalates; they decide "
        "on the page, or with 'langchain-safeguard review'",
    )
    parser.add_argument(
        "--verdict-store",
        default=_environment("--verdict-store", None),
        metavar="URL",
        help="a Redis server through which several servers share what their guards have judged",
    )
    parser.add_argument(
        "--api-key-file",
        metavar="FILE",
        help="keys, one a line, of which clients must send one; also from the environment "
        f"variable {KEYS_VARIABLE}, separated by commas",
    )
    parser.add_argument(
        "--no-auth", action="store_true", help="let everybody in who reaches the address"
    )
    parser.add_argument("--log-level", choices=_LEVELS, default="info", help="default: %(default)s")
    limits = parser.add_argument_group("limits")
    for option, (field, words) in LIMITS.items():
        seconds = field.endswith("_seconds")
        limits.add_argument(
            option,
            type=float if seconds else int,
            # argparse reads a default that is a string as it reads an argument.
            default=_environment(option, getattr(Limits(), field)),
            dest=field,
            metavar="S" if seconds else "N",
            help=f"{words} (default: %(default)s)",
        )
    parser.set_defaults(run=run)


def _environment(option: str, default: object) -> object:
    variable = _PREFIX + option.removeprefix("--").replace("-", "_").upper()
    return os.environ.get(variable) or default


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal comes."""
    # Imported late: they need an extra, and take a while.
    from langchain_safeguard.server import Settings, create_app
    from langchain_safeguard.server.auth import is_loopback
    from langchain_safeguard.server.logs import configure_logging
    from langchain_safeguard.server.process import run as serve
    from langchain_safeguard.server.settings import read_api_keys

    if not 0 <= arguments.port <= 65535:
        raise ConfigurationError(f"--port {arguments.port}; allowed: 0 (any free one) to 65535")
    keys = read_api_keys(arguments.api_key_file, os.environ)
    if arguments.no_auth and keys:
        raise ConfigurationError("--no-auth, but there are API keys; drop one or the other")
    if not keys and not arguments.no_auth and not is_loopback(arguments.host):
        raise ConfigurationError(
            f"--host {arguments.host} lets other machines in, and there are no API keys: give "
            f"--api-key-file FILE, or set {KEYS_VARIABLE}, or say --no-auth if something else "
            "keeps strangers out"
        )
    limits = Limits(**{field.name: getattr(arguments, field.name) for field in fields(Limits)})
    settings = Settings(
        guards=arguments.guard or ("embedded",),
        policies=arguments.policy or (),
        api_keys=keys,
        limits=limits,
        local_only=not keys and not arguments.no_auth,
        verdict_store=arguments.verdict_store,
    )
    handlers, routers = _review(arguments.review_queue)
    app = create_app(settings, handlers=handlers, routers=routers)
    configure_logging(arguments.log_level)
    serve(app, limits, host=arguments.host, port=arguments.port)
    return 0


def _review(url: str | None) -> tuple[list[HumanReview], list[APIRouter]]:
    """Return who is asked when the policy escalates, and the routes where they answer."""
    if url is None:
        return [], []
    from fastapi import APIRouter

    from langchain_safeguard.escalation import HumanReview
    from langchain_safeguard.review.api import review_router
    from langchain_safeguard.review.queue import ReviewQueue

    queue = ReviewQueue(url)
    router = APIRouter(prefix="/review")
    router.include_router(review_router(queue))
    return [HumanReview(queue)], [router]
