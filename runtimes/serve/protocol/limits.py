"""The limits of the server, other than those of one request's fields (`runtimes.requests.fields.Bounds`)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What one client may take of the server.

    Attributes:
        body_bytes: The largest body of a request.
        header_bytes: The largest request line and headers together.
        connections: The most open connections.
        receive_seconds: The most time in which a request must arrive, from its first byte to its last.
        write_seconds: The most time in which a client reads a part of an answer (32 KiB), or its end.
        idle_seconds: How long a connection stays open after an answer. Clients close theirs earlier (httpx after 5 s),
            so that they never write to a connection that the server just closed.
        headers: The most headers.
    """

    body_bytes: int = 2**20
    header_bytes: int = 2**14
    connections: int = 256
    receive_seconds: float = 20.0
    write_seconds: float = 30.0
    idle_seconds: int = 15
    headers: int = 100
