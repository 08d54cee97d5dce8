"""Writes and removes what `slmx doctor --pin` chooses."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from runtimes.bundle.pin import FORMAT_VERSION, LOG, SETTINGS_HOME, DamagedPinsError, Pin, pins_path, read_pins
from runtimes.bundle.store import Bundle
from slm.console.counted import counted
from slm.console.errors import SlmxError
from slm.console.plain_text import escaped
from slm.storage.disk import check_creatable, write_file
from slm.storage.locks import lock_folder
from slm.storage.read_errors import reason_of


def check_pins() -> None:
    """Checks that choices can be written, before a measurement for one.

    Raises:
        SlmxError: The file cannot be written, read or replaced, or this user has no home folder.
    """
    path = pins_path()
    with _locked(path), suppress(DamagedPinsError):
        read_pins(path)


def write_pin(bundle: Bundle, pin: Pin) -> Path:
    """Writes the choice for a bundle, and keeps those for others that are not damaged.

    Returns:
        The file of choices.

    Raises:
        SlmxError: The file cannot be written, read or replaced.
    """
    path = pins_path()
    with _locked(path):
        pins, _ = _kept(path)
        _write(path, pins | {bundle.manifest_sha256: pin})
    return path


def remove_pin(bundle: Bundle) -> Pin | None:
    """Removes the choice for a bundle, on any processor, and keeps those for others that are not damaged.

    Returns:
        The choice; None if there was none.

    Raises:
        SlmxError: The file cannot be written, read or replaced.
    """
    path = pins_path()
    if not path.exists():
        return None
    with _locked(path):
        pins, damaged = _kept(path)
        pin = pins.pop(bundle.manifest_sha256, None)
        if damaged or pin is not None:
            _write(path, pins)
    return pin


def _locked(path: Path) -> AbstractContextManager[object]:
    """Keeps other processes from changing the choices between a read and a write. It waits for them.

    Raises:
        SlmxError: Nothing can be written there.
    """
    with _write_advice(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        check_creatable(path)
    return lock_folder(path.parent, wait=True)


@contextmanager
def _write_advice(path: Path) -> Iterator[None]:
    """Turns an OSError into a line that says where else the choices can be."""
    try:
        yield
    except OSError as error:
        raise SlmxError(
            f"{path}: cannot write ({reason_of(error)}); set {SETTINGS_HOME} to a folder that slmx can write to"
        ) from None


def _kept(path: Path) -> tuple[dict[str, Pin], bool]:
    """Returns the choices of the file, and whether something of it was damaged, which is a warning in the log."""
    name = escaped(str(path))
    try:
        found = read_pins(path)
    except DamagedPinsError:
        LOG.warning("%s: was damaged; it is written anew, without its other choices", name)
        return {}, True
    pins = {digest: pin for digest, pin in found.items() if pin is not None}
    if damaged := len(found) - len(pins):
        LOG.warning("%s: %s damaged and removed", name, counted(damaged, "choice was", "choices were"))
    return pins, damaged > 0


def _write(path: Path, pins: Mapping[str, Pin]) -> None:
    bundles = {digest: asdict(one) for digest, one in pins.items()}
    content = json.dumps({"format_version": FORMAT_VERSION, "bundles": bundles}, indent=1)
    with _write_advice(path):
        write_file(path, content.encode() + b"\n")
