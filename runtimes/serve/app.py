"""The application: routes, and the layers around them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from runtimes.serve.chat import chat_completions
from runtimes.serve.completions import completions
from runtimes.serve.cors import Origins
from runtimes.serve.errors import INVALID_REQUEST, error_response
from runtimes.serve.guard import Guard, ServeSettings
from runtimes.serve.metrics import CONTENT_TYPE, HttpFigures, measure_lag, render
from runtimes.serve.models import get_model, list_models
from runtimes.serve.observer import Observer
from runtimes.serve.openapi import openapi
from runtimes.serve.page import Page, PageFile
from runtimes.serve.state import ServerState, state_of

CODES = {405: "method_not_allowed", 413: "body_too_large"}


def build_app(state: ServerState, settings: ServeSettings, page: Mapping[str, PageFile] | None = None) -> Starlette:
    """Returns the application.

    Its `app.state` has `server`, the given state, `settings` and `http`, the figures of the event loop.

    Args:
        state: The models and the bounds of requests.
        settings: What protects the server.
        page: The files of the page by address; None for no page.
    """
    figures = HttpFigures()
    origins = Middleware(Origins, settings.origins, settings.hosts)
    app = Starlette(
        routes=[
            Route("/v1/completions", completions, methods=["POST"]),
            Route("/v1/chat/completions", chat_completions, methods=["POST"]),
            Route("/v1/models", list_models),
            Route("/v1/models/{model:path}", get_model),
            Route("/openapi.json", openapi),
            Route("/metrics", show_metrics),
            Route("/healthz", healthz),
        ],
        middleware=[
            Middleware(Observer, figures),
            *([origins] if settings.origins else []),
            Middleware(Guard, settings),
        ],
        exception_handlers={HTTPException: show_http_error},
        lifespan=_lifespan,
    )
    app.router.redirect_slashes = False
    app.router.default = Page(page or {})
    app.state.server, app.state.settings, app.state.http = state, settings, figures
    return app


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    """Measures the event loop while the application runs."""
    measuring = asyncio.create_task(measure_lag(app.state.http))
    yield
    measuring.cancel()


async def show_metrics(request: Request) -> Response:
    """Answers `GET /metrics`."""
    models = {name: scheduler.figures() for name, scheduler in state_of(request).models.items()}
    return Response(render(models, request.app.state.http), media_type=CONTENT_TYPE)


async def healthz(request: Request) -> Response:
    """Answers `GET /healthz`: 200 if the server can write stories, else 503."""
    settings: ServeSettings = request.app.state.settings
    if settings.stopping.requested:
        return JSONResponse({"status": "stopping"}, 503)
    dead = [name for name, scheduler in state_of(request).models.items() if not scheduler.alive]
    return JSONResponse({"status": "failed", "models": dead}, 503) if dead else JSONResponse({"status": "ok"})


async def show_http_error(request: Request, error: Exception) -> Response:
    """Answers an error of the framework in OpenAI's shape."""
    assert isinstance(error, HTTPException)
    status, message = error.status_code, error.detail
    if status == 405:
        allowed = ", ".join(sorted((error.headers or {}).get("Allow", "").split(", ")))  # starlette's order is random
        message = f"{request.method} is not possible here: send one of {allowed}"
    return error_response(status, message, INVALID_REQUEST, code=CODES.get(status), headers=error.headers)
