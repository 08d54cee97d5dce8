"""`GET /healthz`: whether the server can write stories."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from runtimes.serve.answers.state import state_of
from runtimes.serve.middleware.settings import ServeSettings


async def healthz(request: Request) -> Response:
    """Answers 200 if the server can write stories, else 503."""
    settings: ServeSettings = request.app.state.settings
    if settings.stopping.requested:
        return JSONResponse({"status": "stopping"}, 503)
    dead = [name for name, scheduler in state_of(request).models.items() if not scheduler.alive]
    return JSONResponse({"status": "failed", "models": dead}, 503) if dead else JSONResponse({"status": "ok"})
