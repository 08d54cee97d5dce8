"""SHA-256, which identifies every file of a checkpoint or a bundle."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hashlib import _Hash

# OpenSSL, which hashlib loads, is four times as fast but takes 4 MB of memory. It is used from this file size in bytes,
# and for every file once it is loaded.
OPENSSL_FROM = 8 * 2**20


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal; OSError if it cannot be read."""
    with path.open("rb") as file:
        digest = _new_sha256(path.stat().st_size)
        while chunk := file.read(1 << 18):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_of_bytes(content: bytes) -> str:
    """Returns the SHA-256 of bytes, in hexadecimal."""
    digest = _new_sha256(len(content))
    digest.update(content)
    return digest.hexdigest()


def _new_sha256(size: int) -> _Hash:
    """Returns a hash object for `size` bytes."""
    if size < OPENSSL_FROM and "_hashlib" not in sys.modules and (own := _own_sha256()):
        return own()
    from hashlib import sha256

    return sha256()


@cache
def _own_sha256() -> Callable[[], _Hash] | None:
    """Returns Python's own SHA-256, or None if this Python has none. Its module was renamed in Python 3.12."""
    for name in ("_sha2", "_sha256"):
        with suppress(ImportError):
            own: Callable[[], _Hash] = import_module(name).sha256
            return own
    return None
