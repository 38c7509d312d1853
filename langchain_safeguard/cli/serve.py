"""`langchain-safeguard serve`: check texts over HTTP."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from langchain_safeguard.errors import ConfigurationError

if TYPE_CHECKING:
    from fastapi import APIRouter

    from langchain_safeguard.escalation import HumanReview

_LEVELS = ("debug", "info", "warning", "error")


def add_to(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "serve",
        help="check texts over HTTP, as OpenAI's moderation endpoint does",
        description="Serve POST /v1/moderations (as in OpenAI's API) and POST /v1/guard (whole "
        "decisions), a page at / to try them, /healthz, /readyz and /metrics. SIGTERM ends it "
        "after the requests it has accepted; SIGHUP, or a changed file, reloads the policies.",
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
        metavar="URL",
        help="a database in which texts wait for a person when the policy escalates; they decide "
        "on the page, or with 'langchain-safeguard review'",
    )
    parser.add_argument(
        "--api-key-file",
        metavar="FILE",
        help="keys, one a line, of which clients must send one; also from the environment "
        "variable LANGCHAIN_SAFEGUARD_API_KEYS, separated by commas",
    )
    parser.add_argument(
        "--no-auth", action="store_true", help="let everybody in who reaches the address"
    )
    parser.add_argument(
        "--max-requests",
        type=int,
        metavar="N",
        help="requests checked at once; more are turned away with 503 (default: 64)",
    )
    parser.add_argument("--log-level", choices=_LEVELS, default="info", help="default: %(default)s")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal comes."""
    # Imported late: they need an extra, and take a while.
    from langchain_safeguard.server import Limits, Settings, create_app
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
            "--api-key-file FILE, or set LANGCHAIN_SAFEGUARD_API_KEYS, or say --no-auth if "
            "something else keeps strangers out"
        )
    limits = Limits() if arguments.max_requests is None else Limits(requests=arguments.max_requests)
    settings = Settings(
        guards=arguments.guard or ("embedded",),
        policies=arguments.policy or (),
        api_keys=keys,
        limits=limits,
        local_only=not keys and not arguments.no_auth,
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
