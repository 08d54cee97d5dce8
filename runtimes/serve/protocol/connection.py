"""HTTP/1.1 of uvicorn with the limits that it lacks.

uvicorn limits neither the headers of a request, nor the time in which it arrives, nor the time in which an answer is
read. `BoundedProtocol` uses internals of uvicorn. It was tried with the versions in docs/server.md.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from runtimes.serve.protocol.http_figures import HttpFigures
from runtimes.serve.protocol.limits import Limits
from runtimes.serve.protocol.log import Entry, log_request
from runtimes.serve.protocol.refusals import (
    NO_UPGRADE,
    Refusal,
    large_body,
    large_headers,
    late_request,
    many_connections,
    no_http,
)
from runtimes.serve.protocol.uvicorn_answers import AnswerTransport, announcing

LINGER_SECONDS = 2.0  # in which a client that was refused can read why
MOST_IGNORED = 2**26  # bytes after which a client that goes on sending is cut off
CHUNK_OVERHEAD = 8  # how much larger than a body its chunks may be: a chunk of one byte has six
READ_AT_ONCE = 2**16  # bytes; asyncio's 256 KiB of small chunks would hold the event loop too long
LEAST_READ = 2**15  # bytes that a slow client must read in the time of the limit
BODY_HEADERS = (b"content-length", b"transfer-encoding")


class BoundedProtocol(HttpToolsProtocol):
    """A connection that ends if its client sends or reads too slowly, or sends too much.

    A client that closes its side of the connection counts as gone. A request that arrives before the answer to the one
    before it is not read; the connection closes after that answer.

    Args:
        config: Of uvicorn.
        server_state: Of uvicorn.
        app_state: Of uvicorn.
        _loop: Of uvicorn.
        limits: The limits.
        figures: Where connections are counted.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: Limits,
        figures: HttpFigures,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = limits
        self._figures = figures
        self._timers: dict[Callable[[], None], asyncio.TimerHandle] = {}
        self._in_head = True  # from the end of a request to the end of the next one's headers
        self._head_bytes = self._received = 0  # of the current request
        self._ignored = -1  # bytes that were thrown away; -1 while the connection is read
        self._refusal: Refusal | None = None
        self._unread = 0  # bytes of answers when a slow client was last looked at

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins a connection, or refuses it if there are too many."""
        super().connection_made(transport)
        transport.max_size = READ_AT_ONCE  # type: ignore[attr-defined]
        # asyncio sets this only on sockets whose protocol is named, and those of `socket.create_server` have none.
        # Without it, the second part of an answer waits for the client to confirm the first, 40 ms on Linux.
        with suppress(OSError):  # the client is gone
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._figures.connections += 1
        most = self._limits.connections
        if len(self.connections) > 2 * most:
            self._cut("connections")
        elif len(self.connections) > most:
            self._refuse(many_connections(self._limits))
        else:
            self._arm(self._too_slow, self._limits.receive_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends a connection."""
        self._figures.connections -= 1
        for timer in list(self._timers):
            self._disarm(timer)
        super().connection_lost(exc)

    def eof_received(self) -> None:
        """Takes a client that sends nothing more for gone. asyncio closes the connection."""
        if self._answering:
            self.transport.abort()
        else:
            self._watch_reader()

    def data_received(self, data: bytes) -> None:
        """Reads a part of a request."""
        if self._ignored >= 0:
            self._ignored += len(data)
            if self._ignored > MOST_IGNORED:
                self._cut("flood")
            return
        if self._too_slow not in self._timers and not self._answering:
            self._arm(self._too_slow, self._limits.receive_seconds)
        self._received += len(data)
        super().data_received(data)
        limits, most = self._limits, self._limits.body_bytes
        if self._ignored >= 0 or self.transport.is_closing():
            return
        if self._in_head and self._received > limits.header_bytes:
            self._refuse(large_headers(limits))
        elif self._received > CHUNK_OVERHEAD * most + limits.header_bytes + 2**16:
            self._refuse(large_body(limits))

    def on_message_begin(self) -> None:
        """Begins a request."""
        if self._answering and not self._sent_whole:
            self.cycle.keep_alive = False
            self._ignored = 0
            raise _Stop
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0

    def on_url(self, url: bytes) -> None:
        """Reads a part of the target."""
        super().on_url(url)
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Reads a header. Trailers after the body are ignored."""
        self._count_head(len(name) + len(value) + 4)
        if self._in_head:
            super().on_header(name, value)
            if len(self.headers) > self._limits.headers:
                self._stop(large_headers(self._limits))

    def on_headers_complete(self) -> None:
        """Starts the answer."""
        if self.parser.should_upgrade() and any(name in BODY_HEADERS for name, _ in self.headers):
            self._stop(NO_UPGRADE)  # the parser does not read the body
        super().on_headers_complete()
        self._in_head = False
        self.cycle.transport = AnswerTransport(self.transport, self.close_after_answer)  # type: ignore[assignment]
        self.cycle.send = announcing(self.cycle)  # type: ignore[method-assign, assignment]
        if self.expect_100_continue or self.parser.should_upgrade():
            # After an early answer nobody knows whether the body follows, and after `Upgrade` the parser stops.
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """Ends the reading of a request."""
        super().on_message_complete()
        self._disarm(self._too_slow)
        self._in_head, self._received = True, 0
        if self.parser.should_upgrade():
            self._ignored = 0

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self._limits.header_bytes:
            self._stop(large_headers(self._limits))

    def _stop(self, refusal: Refusal) -> None:
        """Stops the parser inside one of its callbacks. It then calls `send_400_response`."""
        self._refusal = refusal
        raise _Stop

    def send_400_response(self, msg: str) -> None:
        """Refuses what the parser stopped at."""
        if self._ignored < 0:
            self._refuse(self._refusal or no_http(str(sys.exc_info()[1] or msg)))

    def pause_writing(self) -> None:
        """Waits for a client that reads slowly."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """Goes on after a slow client has read a part."""
        super().resume_writing()
        if self._answering:
            self._disarm(self._look_at_reader)

    def on_response_complete(self) -> None:
        """Ends an answer."""
        super().on_response_complete()
        if self._look_at_reader not in self._timers:
            self._watch_reader()

    def close_after_answer(self) -> None:
        """Ends a connection that is not kept. A request that still arrives does not hide the answer."""
        if self.cycle.more_body:
            self._ignore(self._limits.receive_seconds)
        else:
            self.transport.close()

    @property
    def _answering(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _sent_whole(self) -> bool:
        """Whether the client has all bytes of an answer, which the application has not ended yet."""
        cycle = self.cycle
        return cycle.response_started and not cycle.chunked_encoding and not cycle.expected_content_length

    def _refuse(self, refusal: Refusal) -> None:
        """Answers with an error without the application, and ends the connection."""
        self._figures.refused[refusal.code] += 1
        if self._answering:
            if self.cycle.response_started:
                self.transport.abort()
                return
            self.scope["state"]["refused"] = refusal.status  # for the log
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        else:
            client = self.client[0] if self.client else "-"
            log_request(Entry(client, "-", "-", refusal.status, 0.0, None, "-", refusal.code))
        self.transport.write(refusal.answer(self.server_state.default_headers))
        self._ignore(LINGER_SECONDS)

    def _ignore(self, seconds: float) -> None:
        """Ends this side of the connection, and throws away what still arrives, so that the client can read."""
        self._ignored = max(self._ignored, 0)
        self._disarm(self._too_slow)
        with suppress(OSError):  # the client is gone
            self.transport.write_eof()
        self._arm(self.transport.abort, seconds)

    def _cut(self, reason: str) -> None:
        """Ends the connection at once."""
        self._figures.refused[reason] += 1
        self.transport.abort()

    def _too_slow(self) -> None:
        """Refuses a request that did not arrive in time."""
        if not self._received and not self._answering:
            self.transport.close()  # nothing was asked
        elif not self._answering or self.cycle.more_body:
            self._refuse(late_request(self._limits))

    def _watch_reader(self) -> None:
        """Looks after a while whether the client has read what is there for it."""
        self._unread = self.transport.get_write_buffer_size()
        if self._unread:
            self._arm(self._look_at_reader, self._limits.write_seconds)

    def _look_at_reader(self) -> None:
        """Cuts off a client that reads nothing, or too slowly."""
        unread = self.transport.get_write_buffer_size()
        if unread and unread > self._unread - LEAST_READ:
            self._cut("slow_reader")
        else:
            self._watch_reader()

    def _arm(self, callback: Callable[[], None], seconds: float) -> None:
        self._disarm(callback)

        def fire() -> None:
            del self._timers[callback]
            callback()

        self._timers[callback] = self.loop.call_later(seconds, fire)

    def _disarm(self, callback: Callable[[], None]) -> None:
        timer = self._timers.pop(callback, None)
        if timer is not None:
            timer.cancel()


class _Stop(Exception):
    """Stops the parser."""
