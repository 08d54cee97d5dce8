"""The page of the server: the files of a folder that `slmx web` wrote."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO

from starlette.datastructures import Headers
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from runtimes.serve.errors import error_response
from runtimes.serve.log import plain_path
from runtimes.web.files import HEADERS, open_file

CHUNK = 2**18


class Site:
    """Answers every address that no route has: with a file of the page, or with 404.

    Args:
        folder: The folder of a site; None if there is no page.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        response = await self._answer(scope)
        await response(scope, receive, send)

    async def _answer(self, scope: Scope) -> Response:
        if self._folder is None or scope["method"] not in ("GET", "HEAD"):
            return self._not_found(scope)
        headers, address = Headers(scope=scope), scope["raw_path"].decode("ascii", "replace")
        accepted, tag = headers.get("accept-encoding", ""), headers.get("if-none-match")
        found = await asyncio.to_thread(open_file, self._folder, address, accepted, tag)
        if found is None:
            return self._not_found(scope)
        shown = HEADERS | found.headers
        if scope["method"] == "HEAD" or found.status != HTTPStatus.OK:
            found.file.close()
            return Response(status_code=found.status, headers=shown)
        return StreamingResponse(_chunks(found.file), found.status, shown)

    def _not_found(self, scope: Scope) -> Response:
        path = plain_path(scope["raw_path"])
        hint = ""
        if path == "/":
            hint = "; slmx serve --site FOLDER shows a page that slmx web wrote"
        return error_response(
            404, f"there is nothing at {path}: GET /openapi.json describes this server{hint}", code="unknown_url"
        )


async def _chunks(file: BinaryIO) -> AsyncIterator[bytes]:
    """Yields a file in parts that are read in another thread."""
    with file:
        while chunk := await asyncio.to_thread(file.read, CHUNK):
            yield chunk
