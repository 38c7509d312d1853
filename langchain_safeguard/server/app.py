"""The application: which addresses there are, and what stands in front of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Body, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

import langchain_safeguard
from langchain_safeguard.decision import Decision
from langchain_safeguard.errors import ConfigurationError, ReviewError, ReviewSetupError
from langchain_safeguard.escalation.base import Handler
from langchain_safeguard.review.ticket import with_ticket
from langchain_safeguard.server import examples, guard_api, openai_api
from langchain_safeguard.server.admission import Admission
from langchain_safeguard.server.auth import ApiKeys, OwnSite
from langchain_safeguard.server.metrics import Metrics
from langchain_safeguard.server.observing import FACTS, Observing
from langchain_safeguard.server.page import choices_router, page_router
from langchain_safeguard.server.problems import ApiError, add_error_handlers
from langchain_safeguard.server.registry import Registry
from langchain_safeguard.server.settings import Settings

OPEN_PATHS = ("/", "/healthz", "/readyz", "/openapi.json")
"""What is there for everybody: nothing that was checked, decided or configured."""


def create_app(
    settings: Settings | None = None,
    *,
    handlers: Sequence[Handler] | Mapping[str, Handler] = (),
    routers: Iterable[APIRouter] = (),
) -> FastAPI:
    """Build the application that `langchain-safeguard serve` runs.

    Any ASGI server can run it, such as `uvicorn --factory langchain_safeguard.server:create_app`.
    Guards are loaded in the background once it has started; `app.state.registry` has them.

    Args:
        settings: Guards, policies, keys and limits; the embedded guard with the default policy, no
            keys and the usual limits if left out.
        handlers: Who is asked when a policy escalates, such as a review queue; see `Safeguard`.
        routers: More routes behind the same keys and limits, such as those of a review queue.

    Raises:
        ConfigurationError: Something in the settings or in a policy's file is wrong.
    """
    settings = Settings() if settings is None else settings
    if not isinstance(settings, Settings):
        raise ConfigurationError(f"settings is a {type(settings).__name__}; allowed: Settings")
    metrics = Metrics()
    registry = Registry(settings, handlers=handlers, metrics=metrics)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(each) for each in (registry.load(), registry.watch())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    app = FastAPI(
        title="langchain-safeguard",
        summary="Checks what users ask and models answer. Compatible with OpenAI's moderation API.",
        version=langchain_safeguard.__version__,
        # Their pages load scripts from a CDN; the page at / needs nothing from outside.
        docs_url=None,
        redoc_url=None,
        # A redirect would repeat the scheme that a proxy in front has taken off: keys and texts
        # would go out again unencrypted.
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.registry = registry
    app.state.metrics = metrics
    app.include_router(_checks(registry, settings, metrics))
    app.include_router(_operation(registry, metrics))
    app.include_router(page_router())
    app.include_router(choices_router(registry, settings, app))
    for router in routers:
        app.include_router(router)
    add_error_handlers(app)
    # The last one added is the first that a request meets.
    app.add_middleware(Admission, limits=settings.limits, metrics=metrics)
    app.add_middleware(ApiKeys, keys=settings.api_keys, open_paths=OPEN_PATHS)
    app.add_middleware(OwnSite, local_only=settings.local_only)
    app.add_middleware(Observing, metrics=metrics)
    return app


def _checks(registry: Registry, settings: Settings, metrics: Metrics) -> APIRouter:
    """Return the routes that check texts."""
    router = APIRouter(prefix="/v1", tags=["checks"], responses=examples.ERRORS)

    @router.post(
        "/moderations",
        summary="OpenAI's moderation endpoint",
        response_model=openai_api.ModerationResponse,
    )
    async def moderations(
        body: Annotated[openai_api.ModerationRequest, Body(openapi_examples=examples.MODERATIONS)],
        request: Request,
    ) -> Response:
        """Check one text, several, or one with images, with OpenAI's request and response.

        `flagged` says whether the policy stops the text. Images are not judged; where there are
        any, `safeguard.unchecked` names them, and the policy's `on_unchecked` decides.
        """
        asked = None if body.model in openai_api.OPENAI_MODELS else body.model
        safeguard = registry.choose(asked, body.policy, body.side, guard_field="model")
        conversations = openai_api.conversations_of(body, settings.limits)
        decisions = await safeguard.abatch(conversations, side=body.side)
        _note(request, metrics, decisions)
        return JSONResponse(openai_api.response_of(decisions, conversations, safeguard))

    @router.post(
        "/guard",
        summary="The whole decision about a conversation",
        response_model=guard_api.GuardResponse,
    )
    async def guard(
        body: Annotated[guard_api.GuardRequest, Body(openapi_examples=examples.GUARD)],
        request: Request,
    ) -> Response:
        """Judge the last part of a conversation, and tell what became of it and why."""
        safeguard = registry.choose(body.guard, body.policy, body.side)
        conversation = guard_api.conversation_of(body, settings.limits)
        name = body.policy or next(iter(registry.offer.policies))
        config = None if body.ticket is None else with_ticket(body.ticket)
        try:
            with contextlib.suppress(ReviewError):
                # A ticket that no queue has is a mistake; a queue that is away blocks below.
                await safeguard.arecall(conversation, side=body.side, config=config)
            decision = await safeguard.acheck(conversation, side=body.side, config=config)
        except ReviewSetupError:
            raise ApiError(
                404, "ticket_not_found", "There is no such ticket.", param="ticket"
            ) from None
        _note(request, metrics, [decision])
        return JSONResponse(guard_api.response_of(decision, safeguard.policy, name))

    return router


def _operation(registry: Registry, metrics: Metrics) -> APIRouter:
    """Return the routes for those who run the server."""
    router = APIRouter(tags=["operation"])

    @router.head("/healthz", include_in_schema=False)
    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Tell that the process is alive."""
        return {"status": "ok"}

    @router.head("/readyz", include_in_schema=False)
    @router.get("/readyz", responses=examples.NOT_READY)
    async def readyz() -> dict[str, str]:
        """Tell whether the guards are loaded; 503 until they are."""
        assert registry.offer
        return {"status": "ready"}

    @router.get("/metrics", response_class=Response)
    async def figures() -> Response:
        """Return figures in Prometheus' text format."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return router


def _note(request: Request, metrics: Metrics, decisions: Sequence[Decision]) -> None:
    """Count decisions, and leave for the log what became of the texts."""
    for decision in decisions:
        metrics.decision(decision)
    facts: dict[str, Any] = request.scope[FACTS]
    facts["texts"] = len(decisions)
    facts["actions"] = dict(Counter(decision.action.value for decision in decisions))
