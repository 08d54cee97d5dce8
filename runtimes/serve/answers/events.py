"""Answers in events (text/event-stream)."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from runtimes.serve.answers.follower import Follower

DONE = b"data: [DONE]\n\n"
WAITING = b": waiting\n\n"
# nginx must not collect events before it sends them on.
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def event(content: dict[str, Any]) -> bytes:
    """Returns an event with a JSON object, in ASCII: some clients take U+2028 for the end of a line."""
    return b"data: " + json.dumps(content, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n\n"


class EventStream(StreamingResponse):
    """An answer in events. Its work is cancelled if it ends early.

    Args:
        follower: Follows the job. It is closed at the end.
        parts: The bytes of the answer. Each part is sent at once.
    """

    def __init__(self, follower: Follower, parts: AsyncGenerator[bytes, None]) -> None:
        super().__init__(parts, headers=HEADERS, media_type="text/event-stream")
        self._follower = follower
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the answer."""
        with self._follower:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async with aclosing(self._parts) as parts:
                async for part in parts:
                    await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
