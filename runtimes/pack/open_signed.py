"""Opens a bundle whose signature is required."""

from __future__ import annotations

from pathlib import Path

from runtimes.bundle.store import Bundle
from slm.console.errors import needs


def check_key(key: Path | None) -> None:
    """Checks that a public key can be used, before any work that needs it. None needs no check.

    Raises:
        SlmxError: The key cannot be used, or the extra `[sign]` is not installed.
    """
    if key is not None:
        with needs("sign"):
            from runtimes.pack.keys import read_public_key
        read_public_key(key)


def open_signed(path: Path, key: Path | None) -> Bundle:
    """Opens a bundle. If a key is given, the bundle must be signed with it.

    What is read from the returned object is what was signed.

    Args:
        path: A folder or an archive.
        key: The file of a public key; None requires no signature, and needs no extra.

    Raises:
        SlmxError: The path is not a bundle, the key cannot be used, the bundle is not signed with it, or the extra
            `[sign]` is not installed.
    """
    bundle = Bundle.open(path)
    if key is not None:
        with needs("sign"):
            from runtimes.pack.signature import require_signature
        require_signature(bundle, key)
    return bundle
