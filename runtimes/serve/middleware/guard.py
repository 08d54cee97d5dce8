"""The layer before all handlers: the Host header, the key, the size of the body, and the end of the server."""

from __future__ import annotations

import hashlib

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtimes.serve.middleware.access import Hosts
from runtimes.serve.middleware.settings import ServeSettings
from runtimes.serve.protocol.errors import error_response, response_to
from runtimes.serve.protocol.refusals import large_body
from runtimes.serve.scheduler.errors import StoppingError

API_PREFIX = "/v1"
API_PATHS = ("/metrics", "/openapi.json")
PUBLIC_METHODS = ("GET", "HEAD")
CLIENT_DIGITS = 16


class Guard:
    """Refuses what may not reach a handler, and sets `request.state.client` for the handlers."""

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request with an error, or passes it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = (
            check_host(self._settings.hosts, headers) or self._check_key(scope, headers) or self._check_size(headers)
        )
        if refusal is None and is_api(scope["path"]) and scope["app"].state.server.stopping:
            refusal = response_to(StoppingError())
        if refusal is not None:
            await refusal(scope, receive, send)
        else:
            await self._app(scope, self._bounded(receive), send)

    def _check_key(self, scope: Scope, headers: Headers) -> Response | None:
        keys = self._settings.keys
        given = headers.get("authorization", "")
        digest = keys.check(given.encode("latin-1")) if keys else b""
        who = (digest or b"") + (scope["client"][0] if scope.get("client") else "").encode()
        scope.setdefault("state", {})["client"] = hashlib.sha256(who).hexdigest()[:CLIENT_DIGITS]
        if digest is not None or is_public(scope["method"], scope["path"]):
            return None
        message = "this key is wrong" if given else "a key is needed: send the header Authorization: Bearer KEY"
        return error_response(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})

    def _check_size(self, headers: Headers) -> Response | None:
        if int(headers.get("content-length", "0")) <= self._settings.limits.body_bytes:
            return None
        refusal = large_body(self._settings.limits)
        return error_response(refusal.status, refusal.message, code=refusal.code)

    def _bounded(self, receive: Receive) -> Receive:
        """Returns a channel that refuses a body of chunks as soon as it is too large."""
        limits, total = self._settings.limits, 0

        async def bounded() -> Message:
            nonlocal total
            message = await receive()
            total += len(message.get("body", b""))
            if total > limits.body_bytes:
                raise HTTPException(413, large_body(limits).message)
            return message

        return bounded


def check_host(hosts: Hosts, headers: Headers) -> Response | None:
    """Returns the refusal of a request that does not name this server; None if it does."""
    named = headers.getlist("host")
    if len(named) != 1:
        problem = f"there are {len(named)} headers Host: send one" if named else "the header Host is missing: send it"
        return error_response(400, problem, code="invalid_host")
    if hosts.allow(named[0]):
        return None
    return error_response(
        403, "the header Host names another server: --allow-host NAME of slmx serve adds a name", code="wrong_host"
    )


def is_api(path: str, *more: str) -> bool:
    """Returns whether a path belongs to the API."""
    return path == API_PREFIX or path.startswith(f"{API_PREFIX}/") or path in more


def is_public(method: str, path: str) -> bool:
    """Returns whether a request needs no key: those for the state of the server and for the files of the page."""
    return method in PUBLIC_METHODS and not is_api(path, *API_PATHS)
