"""`GET /openapi.json`: the description of this server in OpenAPI 3.1."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from runtimes.requests.fields import chat_table, completion_table
from runtimes.requests.table import Table
from runtimes.serve.answers.state import ServerState, state_of
from runtimes.serve.endpoints.openapi_schemas import SCHEMAS, Schema, ref
from runtimes.serve.middleware.settings import ServeSettings

JSON, PLAIN = "application/json", "text/plain"
ERRORS = {
    400: "A field is wrong, or the prompt is longer than the context.",
    401: "The key is missing or wrong.",
    403: "The Host header names another server.",
    404: "There is no such model.",
    405: "The path has other methods.",
    408: "The request took too long.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    429: "Too many stories wait; try again after the seconds of Retry-After.",
    431: "The headers are too large.",
    500: "The model failed.",
    503: "The server is stopping.",
}
OF_ANY_REQUEST = (400, 401, 403, 405, 408, 431, 503)
OF_A_POST = (*OF_ANY_REQUEST, 404, 413, 415, 429, 500)


async def openapi(request: Request) -> Response:
    """Answers with the description of this server."""
    settings: ServeSettings = request.app.state.settings
    return JSONResponse(describe(state_of(request), bool(settings.keys)))


def describe(state: ServerState, needs_key: bool) -> dict[str, Any]:
    """Returns the description of a server: its models, and its bounds as the ranges of the fields.

    Args:
        state: The models and the bounds.
        needs_key: Whether requests need a key.
    """
    names = [*state.models]
    requests = {
        "CompletionRequest": _request(completion_table(state.bounds), names),
        "ChatCompletionRequest": _request(chat_table(state.bounds), names),
    }
    model = {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "enum": names}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "slmx serve",
            "version": version("slmx"),
            "description": "Writes stories with small language models, with the interface of OpenAI.",
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}] if needs_key else [{"key": []}, {}],
        "paths": {
            "/v1/completions": {"post": _post("createCompletion", "Continue prompts, or score texts.", "Completion")},
            "/v1/chat/completions": {"post": _post("createChatCompletion", "Answer a chat.", "ChatCompletion")},
            "/v1/models": {"get": _get("listModels", "List the models.", ref("Models"), OF_ANY_REQUEST)},
            "/v1/models/{model}": {
                "get": _get("retrieveModel", "Describe a model.", ref("Model"), (*OF_ANY_REQUEST, 404))
                | {"parameters": [model]}
            },
            "/openapi.json": {"get": _get("describe", "This description.", {"type": "object"}, OF_ANY_REQUEST)},
            "/metrics": {"get": _get("metrics", "Figures for Prometheus.", {"type": "string"}, OF_ANY_REQUEST, PLAIN)},
            "/healthz": {"get": _health()},
        },
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": requests | SCHEMAS,
        },
    }


def _request(table: Table, names: list[str]) -> Schema:
    schema = table.schema()
    schema["properties"]["model"]["enum"] = [*names, None]
    return schema


def _get(operation: str, summary: str, schema: Schema, errors: tuple[int, ...], kind: str = JSON) -> Schema:
    return {
        "operationId": operation,
        "summary": summary,
        "responses": {"200": {"description": "The answer.", "content": {kind: {"schema": schema}}}, **_errors(errors)},
    }


def _health() -> Schema:
    """Returns the description of `/healthz`, which needs no key and answers 503 in its own shape."""
    health = _get("health", "Whether the server can write stories.", ref("Health"), OF_ANY_REQUEST)
    health["responses"]["503"]["content"] = {JSON: {"schema": {"anyOf": [ref("Health"), ref("Error")]}}}
    return health | {"security": []}


def _post(operation: str, summary: str, name: str) -> Schema:
    event = {
        "type": "object",
        "description": "An event of a stream. Lines that begin with a colon are comments.",
        "properties": {"data": {"type": "string", "description": f"A {name}Event or an Error as JSON, or [DONE]."}},
        "required": ["data"],
    }
    return {
        "operationId": operation,
        "summary": summary,
        "requestBody": {"required": True, "content": {JSON: {"schema": ref(f"{name}Request")}}},
        "responses": {
            "200": {
                "description": "The answer, in one piece or in events.",
                "content": {JSON: {"schema": ref(name)}, "text/event-stream": {"schema": event}},
            },
            **_errors(OF_A_POST),
        },
    }


def _errors(statuses: tuple[int, ...]) -> Schema:
    return {
        str(status): {"description": ERRORS[status], "content": {JSON: {"schema": ref("Error")}}}
        for status in sorted(statuses)
    }
