"""Servers of plain applications behind `BoundedProtocol`, and clients that write bytes."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from runtimes.serve.protocol.connection import BoundedProtocol
from runtimes.serve.protocol.http_figures import HttpFigures
from runtimes.serve.protocol.limits import Limits
from tests.waiting import PATIENCE, wait_until


@dataclass
class Echo:
    """An application that reads a request and answers with what it saw.

    Attributes:
        asked: The paths of the requests that reached it.
        bodies: Their bodies, if they arrived whole.
        headers: The headers of each after its body was read.
        gone: How many clients were gone before their answer was sent.
    """

    asked: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    headers: list[list[tuple[bytes, bytes]]] = field(default_factory=list)
    gone: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request: /early before the body is read, /stream without end, /large with 8 MiB, /empty slowly."""
        path = scope["path"]
        self.asked.append(path)
        if path == "/early":
            await answer(send, 401, b"no")
            return
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.gone += 1
                return
            body += message["body"]
            if not message["more_body"]:
                break
        self.bodies.append(body)
        self.headers.append(list(scope["headers"]))
        if path == "/stream":
            await self._stream(receive, send)
        elif path == "/large":
            await answer(send, 200, bytes(2**23))
        elif path == "/empty":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            await asyncio.sleep(0.1)
            await send({"type": "http.response.body", "body": b""})
        elif path == "/wait":
            assert (await receive())["type"] == "http.disconnect"
            self.gone += 1
        else:
            await answer(send, 200, body or b"hello")

    async def _stream(self, receive: Receive, send: Send) -> None:
        watch = asyncio.create_task(cast(Any, receive()))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not watch.done():
            await send({"type": "http.response.body", "body": bytes(2**12), "more_body": True})
            await asyncio.sleep(0)
        assert watch.result()["type"] == "http.disconnect"
        self.gone += 1


async def answer(send: Send, status: int, body: bytes) -> None:
    """Sends a whole answer."""
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@dataclass
class Running:
    """A server that runs.

    Attributes:
        port: Its port on 127.0.0.1.
        figures: What its connections count.
    """

    port: int
    figures: HttpFigures

    def connect(self, receive_buffer: int | None = None) -> socket.socket:
        """Opens a connection, perhaps with a small buffer for what arrives."""
        client = socket.socket()
        if receive_buffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.settimeout(PATIENCE)
        client.connect(("127.0.0.1", self.port))
        return client

    def send(self, request: bytes) -> bytes:
        """Sends bytes and returns all that arrives until the server closes the connection."""
        with self.connect() as client:
            client.sendall(request)
            return read_all(client)


def read_all(client: socket.socket) -> bytes:
    """Returns all that arrives until the server closes the connection."""
    return b"".join(iter(lambda: client.recv(2**16), b""))


def read_answer(client: socket.socket) -> bytes:
    """Returns one answer with a Content-Length, and leaves the connection open."""
    found = b""
    while b"\r\n\r\n" not in found:
        part = client.recv(1)
        assert part
        found += part
    head, _, _ = found.partition(b"\r\n\r\n")
    (length,) = (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
    while length:
        part = client.recv(length)
        assert part
        found, length = found + part, length - len(part)
    return found


def status_of(answered: bytes) -> int:
    """Returns the status of an answer."""
    return int(answered.split(b" ", 2)[1])


def error_of(answered: bytes) -> tuple[int, str]:
    """Returns the status and the code of an error in OpenAI's shape."""
    head, _, body = answered.partition(b"\r\n\r\n")
    assert b"content-type: application/json" in head.lower()
    error = json.loads(body)["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"]
    return status_of(answered), error["code"]


@contextmanager
def running(app: ASGIApp, limits: Limits | None = None) -> Iterator[Running]:
    """Serves an application inside the block, with limits."""
    figures = HttpFigures()
    protocol = partial(BoundedProtocol, limits=limits or Limits(), figures=figures)
    config = uvicorn.Config(
        app,
        http=cast(Any, protocol),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_keep_alive=(limits or Limits()).idle_seconds,
        timeout_graceful_shutdown=1,
    )
    server, listener = uvicorn.Server(config), socket.create_server(("127.0.0.1", 0), backlog=512)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**16)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    wait_until(lambda: server.started)
    try:
        yield Running(listener.getsockname()[1], figures)
    finally:
        server.should_exit = True
        thread.join()
