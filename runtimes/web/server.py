"""Serves a site to the browsers of this machine, with the headers of a good host."""

from __future__ import annotations

import errno
import os
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote_to_bytes

from slm.errors import SlmxError
from slm.json_reader import is_plain_name

HOST = "127.0.0.1"
FIRST_PORT = 8000
PORTS_TO_TRY = 100
INDEX = "index.html"
CHUNK = 2**18
IDLE_SECONDS = 30  # after which a connection is closed

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".gz": "application/gzip",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".md": "text/markdown; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
}
# The packed copies of a file, the smallest first: the name of the coding in HTTP, and the suffix of the copy.
CODINGS = (("br", ".br"), ("gzip", ".gz"))
HEADERS = {
    "Cache-Control": "no-cache",
    # With these three the page is cross-origin isolated, which threads in WebAssembly need.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Vary": "Accept-Encoding",
    "X-Content-Type-Options": "nosniff",
}


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
        path = self._find()
        if path is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        coding, copy = _choose_copy(path, self.headers.get("Accept-Encoding", ""))
        try:
            file = copy.open("rb")
        except OSError:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with file:
            found = os.fstat(file.fileno())
            tag = f'"{found.st_mtime_ns:x}-{found.st_size:x}{coding[:1]}"'
            unchanged = self.headers.get("If-None-Match") == tag
            self.send_response(HTTPStatus.NOT_MODIFIED if unchanged else HTTPStatus.OK)
            self.send_header("ETag", tag)
            if not unchanged:
                self.send_header("Content-Type", TYPES.get(path.suffix, "application/octet-stream"))
                self.send_header("Content-Length", str(found.st_size))
                if coding:
                    self.send_header("Content-Encoding", coding)
            self.end_headers()
            while with_body and not unchanged and (chunk := file.read(CHUNK)):
                self.wfile.write(chunk)

    def _find(self) -> Path | None:
        """Returns the file for the address of the request; None if there is none in the folder of the site."""
        try:
            address = unquote_to_bytes(self.path.split("?", 1)[0].split("#", 1)[0]).decode("ascii")
        except UnicodeDecodeError:
            return None
        if not address.startswith("/"):
            return None
        parts = (address[1:] or INDEX).split("/")
        path = self.server.folder.joinpath(*parts) if all(map(is_plain_name, parts)) else None
        if path is None or not path.is_file():
            return None
        return path if path.resolve().is_relative_to(self.server.folder.resolve()) else None


def _choose_copy(path: Path, accepted: str) -> tuple[str, Path]:
    """Returns the coding and the path of the smallest form of a file that the browser accepts."""
    offered = {}
    for item in accepted.split(","):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        offered[name] = not any(parameter.replace(" ", "") in ("q=0", "q=0.0", "q=0.00") for parameter in parameters)
    for coding, suffix in CODINGS:
        copy = path.with_name(path.name + suffix)
        if offered.get(coding) and copy.is_file():
            return coding, copy
    return "", path


def serve(server: SiteServer, log: Callable[[str], None]) -> None:
    """Serves a site until Ctrl-C, and opens a browser if there is a screen."""
    log(f"{server.url}   (Ctrl-C ends it)")
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
