"""`GET /healthz`: whether the server can write stories."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from runtimes.serve.answers.state import state_of


async def healthz(request: Request) -> Response:
    """Answers 200 if the server can write stories, else 503."""
    state = state_of(request)
    if state.stopping:
        return JSONResponse({"status": "stopping"}, 503)
    dead = [name for name, scheduler in state.models.items() if not scheduler.alive]
    return JSONResponse({"status": "failed", "models": dead}, 503) if dead else JSONResponse({"status": "ok"})
