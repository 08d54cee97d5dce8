"""Writes and removes what `slmx doctor --pin` chooses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict
from pathlib import Path

from runtimes.bundle.pin import FORMAT_VERSION, LOG, DamagedPinsError, Pin, pins_path, read_pins
from runtimes.bundle.store import Bundle
from slm.storage.disk import check_creatable, make_folder, write_file
from slm.storage.locks import lock_folder


def check_pins() -> None:
    """Checks that choices can be written, before a measurement for one.

    Raises:
        SlmxError: The file cannot be written or read, or this user has no home folder.
        WriteError: Nothing can be written in its folder.
    """
    path = pins_path()
    with _locked(path):
        check_creatable(path)
        with suppress(DamagedPinsError):
            read_pins(path)


def write_pin(bundle: Bundle, pin: Pin) -> Path:
    """Writes the choice for a bundle, and keeps those for others, unless the file is damaged.

    Returns:
        The file of choices.

    Raises:
        SlmxError: The file cannot be written or read.
    """
    path = pins_path()
    with _locked(path):
        _write(path, (_kept(path) or {}) | {bundle.manifest_sha256: pin})
    return path


def remove_pin(bundle: Bundle) -> Pin | None:
    """Removes the choice for a bundle, on any processor, and keeps those for others, unless the file is damaged.

    Returns:
        The choice; None if there was none.

    Raises:
        SlmxError: The file cannot be written or read.
    """
    path = pins_path()
    if not path.exists():
        return None
    with _locked(path):
        pins = _kept(path)
        pin = None if pins is None else pins.pop(bundle.manifest_sha256, None)
        if pins is None or pin is not None:
            _write(path, pins or {})
    return pin


def _locked(path: Path) -> AbstractContextManager[object]:
    """Keeps other processes from changing the choices between a read and a write. It waits for them."""
    make_folder(path.parent)
    return lock_folder(path.parent, wait=True)


def _kept(path: Path) -> dict[str, Pin] | None:
    """Returns the choices of the file; None, and a warning in the log, if it is damaged."""
    try:
        return read_pins(path)
    except DamagedPinsError:
        LOG.warning("%s: was damaged; it is written anew, without its other choices", path)
        return None


def _write(path: Path, pins: Mapping[str, Pin]) -> None:
    bundles = {digest: asdict(one) for digest, one in pins.items()}
    content = json.dumps({"format_version": FORMAT_VERSION, "bundles": bundles}, indent=1)
    write_file(path, content.encode() + b"\n")
