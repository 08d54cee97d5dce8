"""A real server in this process, on a free port, and what tests ask of it."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from runtimes.bundle.store import Bundle
from runtimes.engine.generator import Generator
from runtimes.requests.fields import Bounds
from runtimes.serve.answers.state import ServerState
from runtimes.serve.app import build_app
from runtimes.serve.middleware.access import hosts_for
from runtimes.serve.middleware.settings import ServeSettings
from runtimes.serve.scheduler.scheduler import Scheduler
from runtimes.serve.server import StoryServer
from tests.waiting import wait_until

Json = dict[str, Any]
# A story that goes on until it is stopped.
ENDLESS: Json = {"ignore_eos": True, "on_full": "slide", "max_tokens": 2**31 - 1}


class Served:
    """A server that runs, and what it serves.

    Attributes:
        url: Where it is, without a slash at the end.
        state: What its handlers share.
        scheduler: That of its first model.
        generator: The first model.
        http: A client for plain requests.
    """

    def __init__(self, url: str, state: ServerState) -> None:
        self.url = url
        self.state = state
        self.scheduler = next(iter(state.models.values()))
        self.generator = self.scheduler.generator
        self.http = httpx.Client(base_url=url, timeout=60)

    def ask(self, path: str = "/v1/completions", status: int = 200, **fields: object) -> Json:
        """Posts a request and returns the JSON of the answer, which must have this status."""
        response = self.http.post(path, json=fields)
        assert response.status_code == status, response.text
        found: Json = response.json()
        return found

    def events(self, path: str = "/v1/completions", **fields: object) -> list[Json]:
        """Posts a request with stream and returns its events. The last must be [DONE], which is left out."""
        response = self.http.post(path, json={**fields, "stream": True})
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("text/event-stream")
        return read_events(response.text)

    def wait_until_idle(self) -> None:
        """Waits until no story runs or waits, and checks that the model takes no more steps."""
        wait_until(lambda: not (self.scheduler.figures().running or self.scheduler.figures().waiting))
        steps = self.scheduler.figures().steps
        time.sleep(0.05)
        assert self.scheduler.figures().steps == steps


def read_events(text: str) -> list[Json]:
    """Returns the JSON of the events of a stream. Every event is one line of ASCII."""
    assert text.isascii()
    *events, done, rest = text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    shown = [line for line in events if not line.startswith(":")]
    assert all(line.startswith("data: ") and "\n" not in line for line in shown)
    return [json.loads(line.removeprefix("data: ")) for line in shown]


@contextmanager
def serving(
    *paths: Path,
    variant: str = "fp32",
    slots: int = 4,
    queue: int = 64,
    seconds: float = 60.0,
) -> Iterator[Served]:
    """Serves bundles inside the block."""
    generators = [Generator(Bundle.open(path), variant) for path in paths]
    names = [f"{generator.bundle.manifest.preset}{number or ''}" for number, generator in enumerate(generators)]
    schedulers = {name: Scheduler(generator, slots, queue) for name, generator in zip(names, generators, strict=True)}
    state = ServerState(schedulers, Bounds(), seconds, int(time.time()))
    settings = ServeSettings(hosts_for("127.0.0.1", "127.0.0.1", "localhost", ()))
    listener = socket.create_server(("127.0.0.1", 0))
    server = StoryServer(build_app(state, settings, {}), grace=0, trust_proxy=False)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    served = Served(f"http://127.0.0.1:{listener.getsockname()[1]}", state)
    try:
        with served.http:
            yield served
    finally:
        server.should_exit = True
        thread.join()
        for scheduler in schedulers.values():
            scheduler.generator.close()
        listener.close()
