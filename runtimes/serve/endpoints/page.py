"""The page at `/`: it writes stories with the API of this server. Its files are read once and held in memory."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import PurePath

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from runtimes.serve.protocol.errors import error_response
from runtimes.serve.protocol.log import plain_path
from runtimes.web.files import HEADERS, TYPES, accepted_codings
from runtimes.web.installed import INSTALL, find_page_folder, page_is_damaged
from slm.storage.hashing import sha256_of_bytes

# The addresses of the page, and the built file of each. Where an offline page of `slmx web` was at this address before,
# the browser asks for a new version of its service worker, sw.js. unregister.js removes it.
FILES = {
    "/": "server.html",
    "/server.js": "server.js",
    "/style.css": "style.css",
    "/icon.svg": "icon.svg",
    "/LICENSES.txt": "LICENSES.txt",
    "/sw.js": "unregister.js",
}
GZIP = "gzip"
TAG_DIGITS = 32


@dataclass(frozen=True)
class PageFile:
    """A file of the page.

    Attributes:
        kind: Its media type.
        content: Its bytes.
        packed: The same in gzip; None if that is not smaller.
        tag: What identifies the bytes.
    """

    kind: str
    content: bytes
    packed: bytes | None
    tag: str


def load_page() -> dict[str, PageFile]:
    """Returns the files of the page by address; none if the package slmx-web is not installed.

    Raises:
        SlmxError: A file of the package is missing.
    """
    folder = find_page_folder()
    if folder is None:
        return {}
    try:
        return {address: _page_file(name, (folder / name).read_bytes()) for address, name in FILES.items()}
    except OSError:
        raise page_is_damaged(folder) from None


def _page_file(name: str, content: bytes) -> PageFile:
    packed = gzip.compress(content, mtime=0)
    kind, tag = TYPES[PurePath(name).suffix], sha256_of_bytes(content)[:TAG_DIGITS]
    return PageFile(kind, content, packed if len(packed) < len(content) else None, tag)


class Page:
    """Answers every address that no route has: with a file of the page, or with 404.

    Args:
        files: The files by address; none for no page.
    """

    def __init__(self, files: Mapping[str, PageFile]) -> None:
        self._files = files

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        file = self._files.get(scope["path"]) if scope["method"] in ("GET", "HEAD") else None
        response = self._not_found(scope) if file is None else _show(file, Headers(scope=scope))
        await response(scope, receive, send)

    def _not_found(self, scope: Scope) -> Response:
        path = plain_path(scope["raw_path"])
        hint = "" if self._files or path != "/" else f"; the page is not installed: {INSTALL}"
        return error_response(
            404, f"there is nothing at {path}: GET /openapi.json describes this server{hint}", code="unknown_url"
        )


def _show(file: PageFile, asked: Headers) -> Response:
    """Returns a file in the form that the browser accepts; without its bytes, if the browser has them."""
    takes_gzip = GZIP in accepted_codings(asked.get("accept-encoding", ""))
    packed = file.packed if takes_gzip else None
    headers = HEADERS | {"ETag": f'"{file.tag}"' if packed is None else f'"{file.tag}-{GZIP}"'}
    if asked.get("if-none-match") == headers["ETag"]:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    if packed is None:
        return Response(file.content, headers=headers, media_type=file.kind)
    return Response(packed, headers=headers | {"Content-Encoding": GZIP}, media_type=file.kind)
