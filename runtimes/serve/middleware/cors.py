"""Pages of other origins: what a browser asks before a page's request, and what it needs to show the answer."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from runtimes.serve.middleware.access import Hosts
from runtimes.serve.middleware.guard import check_host
from runtimes.serve.protocol.errors import error_response

OF_CONTENT = ("content-length", "content-type")


class Origins(CORSMiddleware):
    """Lets pages of some origins ask. It refuses in OpenAI's shape, and a question to another server's name too.

    Args:
        app: The next layer.
        origins: The origins.
        hosts: The names of this server.
    """

    def __init__(self, app: ASGIApp, origins: tuple[str, ...], hosts: Hosts) -> None:
        exposed = ("x-request-id", "retry-after")
        super().__init__(app, origins, allow_methods=("GET", "POST"), allow_headers=("*",), expose_headers=exposed)
        self._hosts = hosts

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answers what a browser asks before the request of a page."""
        refusal = check_host(self._hosts, request_headers)
        if refusal is not None:
            return refusal
        answer = super().preflight_response(request_headers)
        if answer.status_code == 200:
            return answer
        reason = bytes(answer.body).decode("ascii").rpartition("CORS ")[2]
        headers = {name: value for name, value in answer.headers.items() if name not in OF_CONTENT}
        advice = "--cors ORIGIN of slmx serve adds an origin; methods are GET and POST"
        message = f"this page may not ask here ({reason}): {advice}"
        return error_response(400, message, code="cors_refused", headers=headers)
