"""The whole server in this process, with a shipped model."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import httpx
from starlette.applications import Starlette

from runtimes.bundle.location import SHIPPED_BUNDLES
from runtimes.bundle.store import Bundle
from runtimes.engine.generator import Generator
from runtimes.requests.fields import Bounds
from runtimes.serve.answers.state import ServerState
from runtimes.serve.app import build_app
from runtimes.serve.endpoints.page import PageFile
from runtimes.serve.middleware.access import Hosts, Keys
from runtimes.serve.middleware.settings import ServeSettings
from runtimes.serve.protocol.limits import Limits
from runtimes.serve.scheduler.scheduler import Scheduler
from runtimes.serve.server import StoryServer
from runtimes.serve.start import listen
from tests.runtimes.serve.sockets import Running
from tests.waiting import wait_until

LOCAL = Hosts(frozenset({"localhost"}))
KEY = "a-key-of-the-tests"
# A story that goes on until it is stopped.
ENDLESS: dict[str, Any] = {"prompt": "Once", "ignore_eos": True, "on_full": "slide", "max_tokens": 2**31 - 1}


@functools.cache
def nano() -> Generator:
    """The shipped nano, opened once."""
    return Generator(Bundle.open(SHIPPED_BUNDLES / "nano"))


@dataclass
class Whole(Running):
    """A server that runs, with all its parts.

    Attributes:
        app: The application.
        server: The server.
        scheduler: The scheduler of its only model, nano.
        http: A client for plain requests, without a key.
    """

    app: Starlette
    server: StoryServer
    scheduler: Scheduler
    http: httpx.Client

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def ask(self, **fields: object) -> httpx.Response:
        """Asks for stories."""
        return self.http.post("/v1/completions", json={"prompt": "Once", "max_tokens": 4, **fields})


@contextmanager
def serving_whole(
    *,
    settings: ServeSettings | None = None,
    limits: Limits | None = None,
    bounds: Bounds | None = None,
    slots: int = 2,
    queue: int = 4,
    seconds: float = 60.0,
    grace: float = 0.0,
    trust_proxy: bool = False,
    page: Mapping[str, PageFile] = MappingProxyType({}),
    port: int = 0,
) -> Iterator[Whole]:
    """Serves the shipped nano inside the block."""
    scheduler = Scheduler(nano(), slots, queue)
    state = ServerState({"nano": scheduler}, bounds or Bounds(), seconds, int(time.time()))
    app = build_app(state, settings or ServeSettings(LOCAL, limits=limits or Limits()), page)
    server = StoryServer(app, grace, trust_proxy)
    listener = listen("127.0.0.1", port)
    thread = threading.Thread(target=server.run, args=([listener.socket],))
    thread.start()
    wait_until(lambda: server.started)
    try:
        with httpx.Client(base_url=listener.url, timeout=60) as http:
            yield Whole(listener.port, app.state.figures, app, server, scheduler, http)
    finally:
        server.should_exit = True
        thread.join()


def keyed(**changes: Any) -> ServeSettings:  # noqa: ANN401  # any field of the settings
    """Settings with one key."""
    return ServeSettings(LOCAL, Keys([KEY]), **changes)


def code_of(response: httpx.Response) -> tuple[int, str]:
    """Returns the status and the code of an error in OpenAI's shape."""
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"]
    return response.status_code, error["code"]
