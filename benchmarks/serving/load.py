"""Many clients of a server at the same time, each with one request after another."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from time import perf_counter, process_time
from typing import Any

from benchmarks.serving.client import Answer, Connection
from benchmarks.serving.servers import Server

NAMES = ("Lily", "Tom", "Anna", "Ben", "Mia", "Sam", "Max", "Sue")
BEGINNINGS = ("Once upon a time, {} saw a", "One day, {}", "{} was sad because", "The dog and {} went to the park.")
PATIENCE = 120.0  # most seconds in which the last stories end
PAUSE = 0.05  # seconds after an answer without a story


def prompt(number: int) -> str:
    """Returns one of 32 beginnings."""
    return BEGINNINGS[number % 4].format(NAMES[number // 4 % 8])


@dataclass
class Load:
    """What many clients saw.

    Attributes:
        seconds: How long it took.
        client_cpu: Seconds of processor time of the clients.
        server_cpu: Seconds of processor time of the server.
        tokens: The tokens of all stories that ended.
        statuses: The number of answers by status.
        first: The seconds to the first token of each stream.
    """

    seconds: float = 0.0
    client_cpu: float = 0.0
    server_cpu: float = 0.0
    tokens: int = 0
    statuses: dict[int, int] = field(default_factory=dict)
    first: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds

    def add(self, answer: Answer) -> None:
        """Counts an answer."""
        self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1
        self.tokens += answer.tokens
        if answer.status == 200:
            self.first.append(answer.first)


def run_load(server: Server, clients: int, seconds: float, fields: dict[str, Any], stream: bool) -> Load:
    """Lets clients ask a server for stories, each for the next one as soon as it has one.

    Args:
        server: The server.
        clients: The number of clients, each with a connection of its own.
        seconds: After this time no client asks again. Stories that are being written are read to their end.
        fields: The fields of each request besides the prompt and the seed.
        stream: Whether the answers are streams.
    """
    load = Load()
    wanted = fields | ({"stream": True, "stream_options": {"include_usage": True}} if stream else {})
    cpu, own, began = server.cpu_seconds(), process_time(), perf_counter()

    async def client(number: int) -> None:
        async with await Connection.open(server.port) as connection:
            story = 0
            while perf_counter() - began < seconds:
                place = number + clients * story
                answer = await connection.complete(wanted | {"prompt": prompt(place), "seed": place})
                load.add(answer)
                if answer.status != 200:
                    await asyncio.sleep(PAUSE)
                story += 1

    async def everyone() -> None:
        await asyncio.wait_for(asyncio.gather(*map(client, range(clients))), seconds + PATIENCE)

    asyncio.run(everyone())
    load.seconds = perf_counter() - began
    load.client_cpu = process_time() - own
    load.server_cpu = server.cpu_seconds() - cpu
    return load
