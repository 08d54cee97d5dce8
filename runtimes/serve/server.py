"""The server process: its signals, and its end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any, cast

import uvicorn
from starlette.applications import Starlette

from runtimes.serve.answers.state import ServerState
from runtimes.serve.middleware.settings import ServeSettings
from runtimes.serve.protocol.connection import BoundedProtocol
from runtimes.serve.protocol.log import tell
from runtimes.serve.start import BACKLOG
from slm.console.counted import count_stories

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
# asyncio accepts so many connections before it looks at those that are open: closed ones must not look like a crowd.
ACCEPTED_AT_ONCE = 8
LAST_SECONDS = 5  # after the stories have ended, in which answers are sent
LAST_LINE_SECONDS = 1  # in which the last line is written after a second signal


class StoryServer(uvicorn.Server):
    """Serves an application until a signal.

    At the first signal it accepts no connection, answers new requests with 503 and lets the stories end that run or
    wait. Those that have not ended after the grace are cut. A second signal ends the process at once.

    Args:
        app: As `build_app` returns it.
        grace: The most seconds for the stories that run or wait.
        trust_proxy: Whether the addresses of clients are read from X-Forwarded-For of a proxy on this machine.
    """

    def __init__(self, app: Starlette, grace: float, trust_proxy: bool) -> None:
        settings: ServeSettings = app.state.settings
        limits = settings.limits
        protocol = partial(BoundedProtocol, limits=limits, figures=app.state.figures)
        config = uvicorn.Config(
            app,
            http=cast(Any, protocol),
            ws="none",
            loop="asyncio",
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=trust_proxy,
            forwarded_allow_ips="127.0.0.1,::1",
            server_header=False,
            backlog=ACCEPTED_AT_ONCE,
            timeout_keep_alive=limits.idle_seconds,
            timeout_graceful_shutdown=LAST_SECONDS,
        )
        super().__init__(config)
        self._state: ServerState = app.state.server
        self._grace = grace

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handles signals inside the block. Those that are ignored stay so, as SIGINT in the background of a shell."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
        before = {number: signal.getsignal(number) for number in numbers}
        handled = [number for number, handler in before.items() if handler != signal.SIG_IGN]
        for number in handled:
            signal.signal(number, self.stop)
        try:
            yield
        finally:
            for number in handled:
                signal.signal(number, before[number])

    def stop(self, number: int, frame: FrameType | None = None) -> None:
        """Begins the end of the server; the second time, ends the process."""
        if self._state.stopping:
            # A log that nobody reads may block its writer, and must not keep the process.
            last = threading.Thread(target=tell, args=("stopped", "stopped at once by a second signal"), daemon=True)
            last.start()
            last.join(LAST_LINE_SECONDS)
            os._exit(128 + number)
        self._state.stopping = self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to accept connections."""
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(BACKLOG)  # asyncio has shortened the queue of the kernel to ACCEPTED_AT_ONCE

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Lets the stories end, and then the connections."""
        self._state.stopping = True
        for server in self.servers:
            server.close()
        schedulers = self._state.models.values()
        figures = [scheduler.figures() for scheduler in schedulers]
        stories = sum(figure.running + figure.waiting for figure in figures)
        if stories:
            tell(
                "stopping",
                f"stopping: {count_stories(stories)} can end within {self._grace:g} s; a second signal ends at once",
                stories=stories,
                grace=self._grace,
            )
        drains = (asyncio.to_thread(scheduler.drain, self._grace) for scheduler in schedulers)
        await asyncio.gather(*drains)
        await super().shutdown(sockets)
