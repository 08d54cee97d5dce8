"""An HTTP server for tests, which prints nothing when a client goes away."""

from __future__ import annotations

import sys
from http.server import ThreadingHTTPServer
from typing import Any


class LocalServer(ThreadingHTTPServer):
    """A server whose threads end with the process.

    A test may be over when a thread finds that its client is gone, or fails because the test's files are. What it
    printed would land in another test's output. So a server that is closed prints nothing.
    """

    daemon_threads = True
    is_closed = False

    def server_close(self) -> None:
        self.is_closed = True
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401  # types of socketserver
        if not self.is_closed and not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)
