"""The outermost layer of the application: the id, the log line and the figures of each request, and its last error."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtimes.serve.protocol.errors import CLIENT_GONE, SERVER_ERROR, error_response
from runtimes.serve.protocol.http_figures import HttpFigures
from runtimes.serve.protocol.log import LOG, Entry, log_request, plain_path, printable

# Headers of every answer that does not set them itself.
SECURITY_HEADERS = {
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
STORY_ROUTES = ("/v1/completions", "/v1/chat/completions")
ROUTES = (*STORY_ROUTES, "/v1/models", "/healthz", "/metrics", "/openapi.json", "/")
EVENT = b"data:"


@dataclass
class Seen:
    """What is known of the answer to a request.

    Attributes:
        status: The status; None until the answer begins.
        awaits_token: Whether the answer is a stream of which no event with a token was sent.
    """

    status: int | None = None
    awaits_token: bool = False


class Observer:
    """Gives each request an id, logs and counts it, and answers 500 to an error that nothing foresaw."""

    def __init__(self, app: ASGIApp, figures: HttpFigures) -> None:
        self._app = app
        self._figures = figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, seen = time.perf_counter(), Seen()
        request, figures = f"req_{secrets.token_hex(12)}", self._figures

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen.status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                seen.awaits_token = headers.get("content-type", "").startswith("text/event-stream")
            elif seen.awaits_token and message.get("body", b"").startswith(EVENT) and _has_token(scope):
                seen.awaits_token = False
                figures.first_token.add(time.perf_counter() - began)
            await send(message)

        figures.in_progress += 1
        try:
            await self._app(scope, receive, watched)
        except Exception:
            if seen.status is not None:
                raise
            LOG.exception("internal error in %s", request, extra={"event": "internal_error"})
            answer = error_response(500, f"internal error; the log of the server has it as {request}", SERVER_ERROR)
            await answer(scope, receive, watched)
        finally:
            figures.in_progress -= 1
            self._record(scope, seen, time.perf_counter() - began, request)

    def _record(self, scope: Scope, seen: Seen, seconds: float, request: str) -> None:
        """Counts and logs a request that has ended."""
        state, client = scope.get("state", {}), scope.get("client")
        status = state.get("refused") or seen.status or CLIENT_GONE
        route = route_of(scope["path"])
        self._figures.requests[route, status] += 1
        outcome = state.get("outcome")
        if outcome is not None:
            self._figures.streams_failed[outcome] += 1
        if route in STORY_ROUTES:
            self._figures.seconds.add(seconds)
        address, path = printable(client[0]) if client else "-", plain_path(scope["raw_path"])
        log_request(Entry(address, scope["method"], path, status, seconds, state.get("tokens"), request, outcome))


def _has_token(scope: Scope) -> bool:
    """Returns whether a token of a stream was written, and no error ended the stream."""
    state = scope.get("state", {})
    return bool(state.get("tokens")) and state.get("outcome") is None


def route_of(path: str) -> str:
    """Returns the route of a path for the figures. There are few, whatever clients ask for."""
    if path in ROUTES:
        return path
    return "/v1/models/{model}" if path.startswith("/v1/models/") else "other"
