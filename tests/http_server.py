"""An HTTP server for tests, which prints nothing when a client goes away."""

from __future__ import annotations

import sys
from http.server import ThreadingHTTPServer
from typing import Any


class LocalServer(ThreadingHTTPServer):
    """A server whose threads end with the process.

    A test may be over when a thread finds that its client is gone. What it printed would land in another test's output.
    """

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401  # types of socketserver
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)
