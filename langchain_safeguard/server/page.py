"""The page at `/`: one file, and a policy that lets it load and run nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from fastapi import APIRouter, FastAPI
from fastapi.responses import HTMLResponse, Response

from langchain_safeguard.server.registry import Registry
from langchain_safeguard.server.settings import Settings

REVIEW_PATH = "/review/tickets"
"""Where a review queue's routes are, if they were added to the application."""


def page_router() -> APIRouter:
    """Return the route of the page."""
    html = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    headers = {
        "content-security-policy": _security_policy(html),
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
    }
    router = APIRouter()

    @router.head("/", include_in_schema=False)
    @router.get("/", include_in_schema=False)
    async def page() -> Response:
        return HTMLResponse(html, headers=headers)

    return router


def choices_router(registry: Registry, settings: Settings, app: FastAPI) -> APIRouter:
    """Return the route that tells what a request can choose from."""
    router = APIRouter(prefix="/v1", tags=["checks"])

    @router.get("/choices")
    async def choices() -> dict[str, object]:
        """Return the guards, the policies (the default one first) and the limits."""
        offer = registry.offer
        return {
            "guards": [
                {
                    "name": guard.name,
                    "revision": guard.revision,
                    "sides": sorted(guard.sides),
                    "categories": sorted(guard.categories),
                }
                for guard in offer.guards.values()
            ],
            "policies": [*offer.policies],
            "limits": {
                "texts": settings.limits.texts,
                "characters": settings.limits.characters,
                "body_bytes": settings.limits.body_bytes,
            },
            "review": REVIEW_PATH in app.openapi()["paths"],
        }

    return router


def _security_policy(html: str) -> str:
    """Allow the page's own style and script, by their hashes, and calls to its own server."""
    [style] = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    [script] = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hash(script)}",
            f"style-src {_hash(style)}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
