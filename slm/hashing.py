"""The hash by which every file of a checkpoint or a bundle is known."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hashlib import _Hash

# OpenSSL, which hashlib loads, hashes four times as fast and takes 4 MB of memory: too much for a nano bundle.
OPENSSL_FROM = 8 * 2**20


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal; OSError if it cannot be read."""
    with path.open("rb") as file:
        digest = _new_sha256(path.stat().st_size)
        while chunk := file.read(1 << 18):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_of_bytes(content: bytes) -> str:
    """SHA-256 of bytes, in hexadecimal."""
    digest = _new_sha256(len(content))
    digest.update(content)
    return digest.hexdigest()


def _new_sha256(size: int) -> _Hash:
    """A hash object for so many bytes: for few the interpreter's own, which has two names through its versions."""
    if size < OPENSSL_FROM:
        for name in ("_sha2", "_sha256"):
            with suppress(ImportError):
                own: _Hash = import_module(name).sha256()
                return own
    from hashlib import sha256

    return sha256()
