"""Clients that hurt a server: they leave, send slowly, read nothing, or close half of a connection."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from time import perf_counter
from typing import Any

from benchmarks.serving.client import Connection
from benchmarks.serving.load import prompt
from benchmarks.serving.servers import Server

_RUNNING = re.compile(rb"^slmx_stories_running\S* (\d+)", re.MULTILINE)
_LAG = re.compile(rb"^slmx_event_loop_lag_max_seconds\S* (\S+)", re.MULTILINE)
ENDLESS = {"max_tokens": 100_000, "on_full": "slide", "ignore_eos": True, "stream": True}
OPENED_EACH_SECOND = 500
SLOW_CLIENTS = 100
HALF_CLOSED = 20
Disturbance = Callable[[Server], AbstractAsyncContextManager[None]]


async def metric(connection: Connection, pattern: re.Pattern[bytes]) -> float:
    """Returns a figure of `/metrics`, for all models together."""
    answer = await connection.get("/metrics")
    return sum(float(value) for value in pattern.findall(answer.body))


async def loop_lag(server: Server) -> float:
    """Returns the most seconds by which the event loop of a server was late."""
    async with await Connection.open(server.port) as connection:
        return await metric(connection, _LAG)


async def seconds_to_stop(server: Server) -> float:
    """Returns the seconds from the end of a client to the end of its story, as `/metrics` shows it."""
    async with await Connection.open(server.port) as watcher:
        client = await Connection.open(server.port)
        client.send(ENDLESS | {"prompt": prompt(0)})
        await client.first_event()
        began = perf_counter()
        client.close()
        while await metric(watcher, _RUNNING):
            await asyncio.sleep(0.001)
        return perf_counter() - began


@asynccontextmanager
async def _beside(work: Callable[[], Any]) -> AsyncIterator[None]:
    task = asyncio.ensure_future(work())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def slow_clients(server: Server) -> AsyncIterator[None]:
    """Keeps 100 connections open. Each sends one byte of a request a second, and reads nothing."""

    async def slow() -> None:
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", server.port)
                try:
                    for byte in b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n":
                        writer.write(bytes([byte]))
                        await asyncio.sleep(1.0)
                finally:
                    writer.transport.abort()

    async def all_slow() -> None:
        await asyncio.gather(*(slow() for _ in range(SLOW_CLIENTS)))

    async with _beside(all_slow):
        await asyncio.sleep(1.0)
        yield


@asynccontextmanager
async def half_closed(server: Server) -> AsyncIterator[None]:
    """Keeps 20 connections on which the client has sent half a request and closed its side."""
    writers = []
    for _ in range(HALF_CLOSED):
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Le")
        writer.write_eof()
        writers.append(writer)
    try:
        yield
    finally:
        for writer in writers:
            writer.transport.abort()


async def open_and_drop(server: Server, count: int) -> None:
    """Opens and drops connections, 500 a second, every second one after half a request."""
    began = perf_counter()
    for number in range(count):
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            if number % 2:
                writer.write(b"GET /v1/models HTT")
            writer.transport.abort()
        await asyncio.sleep(max(0.0, began + number / OPENED_EACH_SECOND - perf_counter()))


@asynccontextmanager
async def dropped(server: Server) -> AsyncIterator[None]:
    """Opens and drops connections without an end."""

    async def work() -> None:
        while True:
            await open_and_drop(server, OPENED_EACH_SECOND)

    async with _beside(work):
        yield
