"""What `BoundedProtocol` changes in the answers of uvicorn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

CLOSE = (b"connection", b"close")


class AnswerTransport:
    """What an answer uses of a transport.

    If a connection is closed while data arrives, the client's system throws the answer away (RFC 9112, section 9.6).

    Args:
        transport: The transport of the connection.
        close: Closes the connection after the answer.
    """

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close


def announcing(cycle: RequestResponseCycle) -> Callable[[Any], Coroutine[Any, Any, None]]:
    """Returns the `send` of an answer. It announces the end of the connection if the connection is not kept.

    A connection is not kept if its request has not arrived as a whole when the answer begins. Without the header, a
    client would send its next request there. uvicorn does not keep a connection whose answer has the header.

    Args:
        cycle: The answer.
    """
    send = cycle.send

    async def announced(message: Any) -> None:  # noqa: ANN401  # a message of ASGI
        if message["type"] == "http.response.start" and (cycle.more_body or not cycle.keep_alive):
            message = message | {"headers": [*(header for header in message["headers"] if header != CLOSE), CLOSE]}
        await send(message)

    return announced
