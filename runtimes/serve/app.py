"""The application: its addresses, and the layers around them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from runtimes.serve.answers.state import ServerState
from runtimes.serve.endpoints.chat import chat_completions
from runtimes.serve.endpoints.completions import completions
from runtimes.serve.endpoints.health import healthz
from runtimes.serve.endpoints.metrics import metrics
from runtimes.serve.endpoints.models import get_model, list_models
from runtimes.serve.endpoints.openapi import openapi
from runtimes.serve.endpoints.page import Page, PageFile
from runtimes.serve.middleware.cors import Origins
from runtimes.serve.middleware.guard import Guard
from runtimes.serve.middleware.observer import Observer
from runtimes.serve.middleware.settings import ServeSettings
from runtimes.serve.protocol.errors import error_response, response_to
from runtimes.serve.protocol.http_figures import HttpFigures, measure_lag
from slm.console.errors import SlmxError

CODES = {405: "method_not_allowed", 413: "body_too_large"}


def build_app(state: ServerState, settings: ServeSettings, page: Mapping[str, PageFile]) -> Starlette:
    """Returns the application.

    Its `app.state` has `server`, the given state, `settings`, and `figures`, what the event loop counts.

    Args:
        state: The models and the bounds of requests.
        settings: What protects the server.
        page: The files of the page by address; none for no page.
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
            Route("/metrics", metrics),
            Route("/healthz", healthz),
        ],
        middleware=[
            Middleware(Observer, figures),
            *([origins] if settings.origins else []),
            Middleware(Guard, settings),
        ],
        exception_handlers={HTTPException: _show_http_error, SlmxError: _show_error, ClientDisconnect: _show_error},
        lifespan=_lifespan,
    )
    app.router.redirect_slashes = False
    app.router.default = Page(page)
    app.state.server, app.state.settings, app.state.figures = state, settings, figures
    return app


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    """Measures the event loop while the application runs."""
    measuring = asyncio.create_task(measure_lag(app.state.figures))
    yield
    measuring.cancel()


async def _show_error(_: Request, error: Exception) -> Response:
    """Answers an error of a request that can be foreseen."""
    return response_to(error)


async def _show_http_error(request: Request, error: Exception) -> Response:
    """Answers an error of the framework in OpenAI's shape."""
    assert isinstance(error, HTTPException)
    status, message = error.status_code, error.detail
    if status == 405:
        allowed = ", ".join(sorted((error.headers or {}).get("Allow", "").split(", ")))  # starlette's order is random
        message = f"{request.method} is not possible here: send one of {allowed}"
    return error_response(status, message, code=CODES.get(status), headers=error.headers)
