"""A client for completions over HTTP/1.1. It does as little as it can, because it uses the cores of the server."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from time import perf_counter
from typing import Any

_TOKENS = re.compile(rb'"completion_tokens": ?(\d+)')
_LENGTH = re.compile(rb"content-length: ?(\d+)", re.IGNORECASE)
_TOKENS_AT_END = 2000  # bytes; the last event of a stream has the usage
_BUFFER = 2**20


@dataclass(frozen=True)
class Answer:
    """What a server answered.

    Attributes:
        status: The status of HTTP.
        tokens: The number of tokens that were written.
        first: Seconds from the request to the first event of a stream, or to the end of another answer.
        seconds: Seconds from the request to the end.
        body: The bytes after the headers, as they came.
    """

    status: int
    tokens: int
    first: float
    seconds: float
    body: bytes


class Connection:
    """An open connection to a server on this machine. It sends one request after another."""

    def __init__(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._port, self._reader, self._writer = port, reader, writer

    @classmethod
    async def open(cls, port: int) -> Connection:
        """Connects to a port of 127.0.0.1."""
        return cls(port, *await asyncio.open_connection("127.0.0.1", port, limit=_BUFFER))

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection at once. What the server still sends is lost."""
        self._writer.transport.abort()

    async def get(self, path: str) -> Answer:
        """Asks for a path."""
        return await self._ask(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())

    async def complete(self, fields: dict[str, Any]) -> Answer:
        """Asks for a completion, as a whole or as a stream. It connects again if the server has closed before."""
        for _ in range(2):
            try:
                self.send(fields)
                return await self._answer()
            except (asyncio.IncompleteReadError, ConnectionError):
                self.close()
                self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=_BUFFER)
        self.send(fields)
        return await self._answer()

    def send(self, fields: dict[str, Any]) -> None:
        """Sends a request for a completion."""
        body = json.dumps(fields).encode()
        head = "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        self._writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    async def first_event(self) -> None:
        """Waits for the first event of a stream."""
        await self._reader.readuntil(b"data: {")

    async def _ask(self, request: bytes) -> Answer:
        self._writer.write(request)
        return await self._answer()

    async def _answer(self) -> Answer:
        began = perf_counter()
        head = await self._reader.readuntil(b"\r\n\r\n")
        status = int(head.split(None, 2)[1])
        length = _LENGTH.search(head)
        if length is not None:
            body = await self._reader.readexactly(int(length[1]))
            first = perf_counter() - began
        else:
            body = await self._reader.readuntil(b"data: {")
            first = perf_counter() - began
            try:
                body += await self._reader.readuntil(b"\r\n0\r\n\r\n")
            except asyncio.IncompleteReadError as error:  # this server closes after a stream
                body += error.partial
        found = _TOKENS.findall(body[-_TOKENS_AT_END:])
        return Answer(status, int(found[-1]) if found else 0, first, perf_counter() - began, body)
