"""Which bundles are on this machine, and the removal of one: `slmx list` and `slmx rm`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path

from runtimes.bundle.location import (
    SHIPPED_BUNDLES,
    SMALL_DISTRIBUTION,
    UnknownBundleError,
    bundle_path,
    exported_names,
    pulled_names,
    shipped_names,
)
from runtimes.bundle.manifest import BUNDLE_LISTING, VERIFICATION_FILE
from runtimes.bundle.store import Bundle
from runtimes.hub.record import read_record, record_path
from runtimes.pack.envelope import read_signature
from slm.console.errors import SlmxError
from slm.storage.file_names import MANIFEST_FILE
from slm.storage.ownership import foreign_file


class Origin(Enum):
    """How a bundle came to this machine."""

    SHIPPED = "shipped"
    EXPORTED = "exported"
    PULLED = "pulled"


@dataclass(frozen=True)
class Entry:
    """A bundle on this machine.

    Attributes:
        name: The name that commands accept, or the path if the name stands for another bundle.
        origin: How it came here.
        path: Its folder or archive.
        bytes: Size of all its files on the disk.
        date: When it was pulled or exported, in UTC, such as 2026-11-30T12:00:00+00:00; None for a shipped one.
        source: The repository and the commit if it was pulled, or else what its manifest says that it was trained on.
        variants: Its variants, the default first.
        problem: Why it cannot be opened; None if it can. Then it has no variants.
    """

    name: str
    origin: Origin
    path: Path
    bytes: int
    date: str | None
    source: str | None
    variants: tuple[str, ...]
    problem: str | None = None


def list_bundles() -> list[Entry]:
    """Returns the shipped bundles, those in `bundles` of the current folder, and the pulled ones. Nothing is hashed."""
    return list(_entries())


def _entries() -> Iterator[Entry]:
    tables = {Origin.SHIPPED: shipped_names(), Origin.EXPORTED: exported_names(), Origin.PULLED: pulled_names()}
    taken: set[str] = set()  # a name stands for the first bundle that has it
    for origin, table in tables.items():
        for name, path in table.items():
            yield _entry(str(path) if name in taken else name, origin, path)
        taken |= table.keys()


def _entry(name: str, origin: Origin, path: Path) -> Entry:
    date = None if origin is Origin.SHIPPED else _written(path)
    source, problem = None, None
    variants: tuple[str, ...] = ()
    try:
        bundle = Bundle.open(path)
    except SlmxError as error:
        problem = str(error)
    else:
        default = bundle.manifest.default
        variants = tuple(sorted(bundle.manifest.variants, key=lambda variant: variant != default))
        record = None if origin is Origin.SHIPPED else read_record(path, bundle.manifest_sha256)
        source = bundle.manifest.checkpoint.shown_source
        if record is not None:
            date, source = record.date, f"{record.hub}/{record.repository} at {record.commit[:12]}"
    return Entry(name, origin, path, _size(path), date, source, variants, problem)


def _written(path: Path) -> str | None:
    with suppress(OSError):
        changed = (path if path.is_file() else path / MANIFEST_FILE).stat().st_mtime
        return datetime.fromtimestamp(changed, timezone.utc).isoformat(timespec="seconds")
    return None


def _size(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def find_entry(name: str) -> Entry:
    """Finds a bundle that can be removed.

    Args:
        name: A name as in `slmx list`, or the path of a bundle in it.

    Raises:
        SlmxError: It is none of these bundles, it ships with slmx, or it holds a file that slmx did not write.
    """
    try:
        path = bundle_path(name)
    except UnknownBundleError:
        raise SlmxError(f"{name}: no such path, and no bundle of this name; slmx list shows what is here") from None
    for entry in _entries():
        if entry.path.absolute() != path.absolute():
            continue
        if entry.origin is Origin.SHIPPED:
            package = "slmx itself" if path.parent == SHIPPED_BUNDLES else SMALL_DISTRIBUTION
            raise SlmxError(f"{name}: it is a part of {package}, which pip removes")
        if path.is_symlink():
            raise SlmxError(f"{path}: a link to a bundle; delete the link yourself")
        if why := _change(path):
            raise SlmxError(f"{path}: {why}, so nothing was removed; delete it yourself")
        return entry
    raise SlmxError(f"{name}: slmx removes only bundles that slmx list shows; delete this one yourself")


def _change(path: Path) -> str | None:
    """Returns how a bundle differs from what slmx wrote; None if it does not."""
    if path.is_dir():
        foreign = foreign_file(path, BUNDLE_LISTING)
        return foreign and f"{foreign} was added or changed there"
    try:
        changed = bool(Bundle.open(path).problems())
    except SlmxError:
        changed = True
    return "the archive is not as slmx wrote it" if changed else None


def remove_bundle(entry: Entry) -> None:
    """Removes a bundle that `find_entry` found, and the record of where it came from.

    Raises:
        SlmxError: Another process writes it, or added a file meanwhile. It is kept.
        OSError: It cannot be deleted.
    """
    from slm.storage.atomic import remove_folder
    from slm.storage.locks import lock_folder

    record = record_path(entry.path)
    if entry.path.is_file():
        bundle = Bundle.open(entry.path)
        beside = [bundle.beside(VERIFICATION_FILE)]
        if read_signature(bundle.signature_path) is not None:
            beside.append(bundle.signature_path)
        for path in (entry.path, *beside):
            path.unlink(missing_ok=True)
    else:
        with lock_folder(entry.path):
            remove_folder(entry.path, BUNDLE_LISTING)
        if entry.path.exists():
            raise SlmxError(f"{entry.path}: another program wrote there meanwhile; it was not removed")
    record.unlink(missing_ok=True)
    if entry.origin is Origin.PULLED:
        with suppress(OSError):  # the folder of an owner that has other bundles stays
            entry.path.parent.rmdir()
