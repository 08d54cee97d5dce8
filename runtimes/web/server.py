"""Serves a site to the browsers of this machine, with the headers of a good host."""

from __future__ import annotations

import errno
import os
import sys
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from runtimes.web.files import HEADERS, open_file
from slm.console.errors import SlmxError
from slm.console.notice import Log

HOST = "127.0.0.1"
FIRST_PORT = 8000
PORTS_TO_TRY = 100
CHUNK = 2**18
IDLE_SECONDS = 30  # after which a connection is closed


class SiteServer(ThreadingHTTPServer):
    """Serves the files of one folder on the loopback interface. It listens as soon as it exists."""

    daemon_threads = True

    def __init__(self, folder: Path, port: int | None = None, handler: type[SiteHandler] | None = None) -> None:
        """Takes a port.

        Args:
            folder: The folder of the site; it may be written later.
            port: The port; 0 takes any free one, None the first free one from `FIRST_PORT`.
            handler: What answers; None is SiteHandler.

        Raises:
            SlmxError: The port is taken or may not be used.
        """
        self.folder = folder
        for candidate in range(FIRST_PORT, FIRST_PORT + PORTS_TO_TRY) if port is None else (port,):
            try:
                super().__init__((HOST, candidate), handler or SiteHandler)
                return
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise SlmxError(f"port {candidate}: {error.strerror}; choose another --port") from None
        if port is None:
            raise SlmxError(f"no free port from {FIRST_PORT} to {candidate}; choose one with --port")
        raise SlmxError(f"port {port}: another program uses it; choose another --port, or leave it out")

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{HOST}:{self.server_address[1]}/"

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignores connections that the browser gave up."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class SiteHandler(BaseHTTPRequestHandler):
    """Answers GET and HEAD for the files of the site."""

    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS
    server: SiteServer

    def do_GET(self) -> None:
        """Sends a file."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """Sends the headers of a file."""
        self._answer(with_body=False)

    def log_message(self, *args: object) -> None:
        """Writes nothing: the terminal shows the address of the page only."""

    def version_string(self) -> str:
        """Returns the Server header."""
        return "slmx"

    def end_headers(self) -> None:
        """Adds the headers that every answer has."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def _answer(self, with_body: bool) -> None:
        accepted, tag = self.headers.get("Accept-Encoding", ""), self.headers.get("If-None-Match")
        found = open_file(self.server.folder, self.path, accepted, tag)
        if found is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with found.file as file:
            self.send_response(found.status)
            for name, value in found.headers.items():
                self.send_header(name, value)
            self.end_headers()
            while with_body and found.status == HTTPStatus.OK and (chunk := file.read(CHUNK)):
                self.wfile.write(chunk)


def serve(server: SiteServer, log: Log) -> None:
    """Serves a site until Ctrl-C, and opens a browser if there is a screen."""
    log("Ctrl-C ends it")
    if _has_screen():
        webbrowser.open(server.url)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        log("")
    finally:
        server.server_close()


@contextmanager
def running(folder: Path, handler: type[SiteHandler] | None = None) -> Iterator[SiteServer]:
    """Serves a folder on any free port from a thread, until the block ends.

    Args:
        folder: The folder of a site.
        handler: What answers; None is SiteHandler.
    """
    server = SiteServer(folder, 0, handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def _has_screen() -> bool:
    """Returns whether a person sits at this machine: a terminal, and a display for a browser."""
    if sys.stdout is None or not sys.stdout.isatty():
        return False
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
