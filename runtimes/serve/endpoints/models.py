"""`GET /v1/models`: the models of this server."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from runtimes.serve.answers.answer import fingerprint
from runtimes.serve.answers.state import ServerState, state_of


async def list_models(request: Request) -> Response:
    """Answers with all models, the default first."""
    state = state_of(request)
    return JSONResponse({"object": "list", "data": [_describe(state, name) for name in state.models]})


async def get_model(request: Request) -> Response:
    """Answers with one model."""
    state = state_of(request)
    name, _ = state.find(request.path_params["model"])
    return JSONResponse(_describe(state, name))


def _describe(state: ServerState, name: str) -> dict[str, Any]:
    """Returns a model as OpenAI does, with its context as vLLM does, and what slmx knows of it."""
    scheduler = state.models[name]
    generator = scheduler.generator
    return {
        "id": name,
        "object": "model",
        "created": state.created,
        "owned_by": "slmx",
        "max_model_len": generator.bundle.config.block_size,
        "variant": generator.variant,
        "parameters": generator.bundle.config.parameters,
        "system_fingerprint": fingerprint(scheduler),
    }
