"""Which file of a site answers an address, in which form, and with which headers."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote_to_bytes

from slm.storage.json_reader import is_plain_name

INDEX = "index.html"
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
# The weight of a coding that a browser does not accept (RFC 9110, section 12.4.2).
ZERO = re.compile(r"q=0(\.0{0,3})?")
HEADERS = {
    "Cache-Control": "no-cache",
    # With these three the page is cross-origin isolated, which threads in WebAssembly need.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Vary": "Accept-Encoding",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class SiteFile:
    """How a file of a site is sent.

    Attributes:
        file: The file or a packed copy of it, open for reading. The caller closes it.
        status: OK, or NOT_MODIFIED if the browser has the same file.
        headers: The headers of this file; `HEADERS` are those of all files.
    """

    file: BinaryIO
    status: HTTPStatus
    headers: dict[str, str]


def open_file(folder: Path, address: str, accepted: str, known_tag: str | None) -> SiteFile | None:
    """Opens the file for an address.

    Args:
        folder: The folder of the site.
        address: The target of the request as it was sent, with percent signs and query.
        accepted: The header Accept-Encoding.
        known_tag: The header If-None-Match.

    Returns:
        The file; None if the folder of the site holds none for the address.
    """
    path = _path_of(folder, address)
    if path is None:
        return None
    coding, copy = _choose_copy(path, accepted)
    try:
        file = copy.open("rb")
    except OSError:
        return None
    found = os.fstat(file.fileno())
    tag = f'"{found.st_mtime_ns:x}-{found.st_size:x}{coding[:1]}"'
    if known_tag == tag:
        return SiteFile(file, HTTPStatus.NOT_MODIFIED, {"ETag": tag})
    headers = {
        "ETag": tag,
        "Content-Type": TYPES.get(path.suffix, "application/octet-stream"),
        "Content-Length": str(found.st_size),
    }
    return SiteFile(file, HTTPStatus.OK, headers | ({"Content-Encoding": coding} if coding else {}))


def _path_of(folder: Path, address: str) -> Path | None:
    """Returns the file for an address; None if there is none in the folder."""
    try:
        decoded = unquote_to_bytes(address.split("?", 1)[0].split("#", 1)[0]).decode("ascii")
    except UnicodeDecodeError:
        return None
    if not decoded.startswith("/"):
        return None
    parts = (decoded[1:] or INDEX).split("/")
    path = folder.joinpath(*parts) if all(map(is_plain_name, parts)) else None
    try:
        if path is None or not path.is_file():
            return None
        return path if path.resolve().is_relative_to(folder.resolve()) else None
    except OSError:
        return None


def accepted_codings(accepted: str) -> frozenset[str]:
    """Returns the codings of HTTP that a header Accept-Encoding allows, in lower case."""
    found = set()
    for item in accepted.split(","):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        if not any(ZERO.fullmatch(parameter) for parameter in parameters):
            found.add(name)
    return frozenset(found)


def _choose_copy(path: Path, accepted: str) -> tuple[str, Path]:
    """Returns the coding and the path of the smallest form of a file that the browser accepts."""
    codings = accepted_codings(accepted)
    for coding, suffix in CODINGS:
        copy = path.with_name(path.name + suffix)
        if coding in codings and copy.is_file():
            return coding, copy
    return "", path
