"""Writes and removes what `slmx doctor --pin` chooses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path

from runtimes.bundle.pin import FORMAT_VERSION, Pin, pins_path, read_pins
from runtimes.bundle.store import Bundle
from slm.storage.disk import make_folder, write_file
from slm.storage.locks import lock_folder


def write_pin(bundle: Bundle, pin: Pin) -> Path:
    """Writes the choice for a bundle, and keeps those for others.

    Returns:
        The file of choices.

    Raises:
        SlmxError: The file cannot be written, or is damaged.
    """
    path = pins_path()
    with _locked(path):
        _write(path, read_pins(path) | {bundle.manifest_sha256: pin})
    return path


def remove_pin(bundle: Bundle) -> Pin | None:
    """Removes the choice for a bundle, on any processor, and keeps those for others.

    Returns:
        The choice; None if there was none.

    Raises:
        SlmxError: The file cannot be written, or is damaged.
    """
    path = pins_path()
    if not path.exists():
        return None
    with _locked(path):
        pins = read_pins(path)
        pin = pins.pop(bundle.manifest_sha256, None)
        if pin is not None:
            _write(path, pins)
    return pin


def _locked(path: Path) -> AbstractContextManager[object]:
    """Keeps other processes from changing the choices between a read and a write. It waits for them."""
    make_folder(path.parent)
    return lock_folder(path.parent, wait=True)


def _write(path: Path, pins: Mapping[str, Pin]) -> None:
    bundles = {digest: asdict(one) for digest, one in pins.items()}
    content = json.dumps({"format_version": FORMAT_VERSION, "bundles": bundles}, indent=1)
    write_file(path, content.encode() + b"\n")
