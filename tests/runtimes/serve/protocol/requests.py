"""Requests in bytes, and the limits of a server that soon loses patience."""

from __future__ import annotations

from runtimes.serve.protocol.limits import Limits

QUICK = Limits(receive_seconds=0.5, write_seconds=0.5, idle_seconds=1)
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
