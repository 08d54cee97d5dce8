"""Answers that a connection gives without the application."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from runtimes.serve.protocol.errors import INVALID_REQUEST, SERVER_ERROR, error_body
from runtimes.serve.protocol.limits import Limits
from slm.console.counted import counted


@dataclass(frozen=True)
class Refusal:
    """Why a connection is refused, in OpenAI's shape. `error_response` describes its fields."""

    status: int
    code: str
    message: str
    type: str = INVALID_REQUEST

    def answer(self, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        """Returns the whole answer.

        Args:
            headers: The headers of every answer.
        """
        body = json.dumps(error_body(self.message, self.type, None, self.code)).encode("ascii")
        all_headers = [
            *headers,
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in all_headers)
        return STATUS_LINE[self.status] + lines + b"\r\n" + body


NO_UPGRADE = Refusal(
    400, "no_upgrade", "a request with a body cannot have the header Upgrade: set your client to HTTP/1.1"
)


def no_http(reason: str) -> Refusal:
    """Returns the refusal of bytes that are no request.

    Args:
        reason: What the parser says of them. It holds nothing that the client sent.
    """
    return Refusal(400, "invalid_http", f"this is not HTTP/1.1: {reason}")


def large_headers(limits: Limits) -> Refusal:
    """Returns the refusal of headers that are too many or too large."""
    possible = f"at most {limits.headers} headers and {limits.header_bytes:,} bytes in all are possible"
    return Refusal(431, "headers_too_large", f"the headers are too large: {possible}")


def large_body(limits: Limits) -> Refusal:
    """Returns the refusal of a body that is too large."""
    message = f"the body has more than {limits.body_bytes:,} bytes: send less, or start slmx serve with a larger"
    return Refusal(413, "body_too_large", f"{message} --max-body")


def late_request(limits: Limits) -> Refusal:
    """Returns the refusal of a request that did not arrive in time."""
    return Refusal(408, "receive_timeout", f"the request did not arrive within {limits.receive_seconds:g} s")


def many_connections(limits: Limits) -> Refusal:
    """Returns the refusal of a connection while there are too many."""
    message = f"the server has {counted(limits.connections, 'connection')} and takes no more: try again later"
    return Refusal(503, "too_many_connections", message, SERVER_ERROR)
