"""The front door of `slmx pull`: brings a bundle from the hub. It appears whole, in one step, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path

from runtimes.bundle.location import pulled_bundles
from runtimes.bundle.manifest import MANIFEST_FILE, MAX_MANIFEST_BYTES, FileEntry, Manifest
from runtimes.bundle.store import Bundle
from runtimes.hub.record import Record, read_record, write_record
from slm.atomic import atomic_folder
from slm.errors import SlmxError, UsageError
from slm.hashing import sha256_of_bytes
from slm.hub import HubError, HubName, HubUnreachable, Snapshot, hub_address, open_snapshot
from slm.locks import lock_folder
from slm.ownership import BUNDLE, foreign_file

Report = Callable[[str], None]
CHUNK = 2**20
NO_BUNDLE = "it is no bundle of slmx; slmx import may read it, if it is a model of another program"
ASK_OWNER = "nothing was kept; its owner must push it again"


@dataclass(frozen=True)
class PullSettings:
    """What to bring and where to.

    Attributes:
        name: OWNER/NAME or OWNER/NAME@REVISION.
        out: The folder of the bundle; None is OWNER/NAME in the folder of pulled bundles.
    """

    name: str
    out: Path | None = None


@dataclass(frozen=True)
class Held:
    """What the target holds before a pull.

    Attributes:
        manifest_sha256: SHA-256 of the manifest if it holds a whole bundle; None if not.
        record: Where that bundle came from, if it came from the repository that is pulled now; None if not.
    """

    manifest_sha256: str | None = None
    record: Record | None = None

    @classmethod
    def find(cls, target: Path, repository: str) -> Held:
        """Returns what a folder holds. A bundle with a missing, changed or strange file is not whole."""
        try:
            bundle = Bundle.open(target)
        except SlmxError:
            return cls()
        if bundle.problems():
            return cls()
        record = read_record(target, bundle.manifest_sha256)
        return cls(bundle.manifest_sha256, record if record and record.repository == repository else None)


def pull_bundle(settings: PullSettings, report: Report) -> Path:
    """Brings a bundle from the hub, unless it is here already.

    Args:
        settings: What to bring and where to.
        report: Called with one line about what was done.

    Returns:
        The folder of the bundle.

    Raises:
        UsageError: The name is none of a repository.
        HubError: The hub cannot be reached or refuses, and there is no copy of the bundle here.
        SlmxError: The repository holds no bundle, a file is not the one that its manifest lists, or the folder cannot
            be written. The folder is as it was before.
    """
    name = HubName.find(settings.name)
    if name is None:
        raise UsageError(f"{settings.name}: no name of a repository; name it as OWNER/NAME or OWNER/NAME@REVISION")
    target = settings.out or pulled_bundles() / name.repository
    with _advice(settings), lock_folder(target, wait=True):
        held = Held.find(target, name.repository)
        if held.record and held.record.commit == name.asked:
            report(f"{name} is up to date")
            return target
        try:
            snapshot = open_snapshot(name, MANIFEST_FILE, MAX_MANIFEST_BYTES, NO_BUNDLE)
        except HubUnreachable as error:
            if held.record is None or held.record.revision != name.asked:
                raise
            report(f"{name}: {error.why}; the copy of commit {held.record.commit[:12]} stays")
            return target
        content = snapshot.first.read_bytes()
        if held.manifest_sha256 == sha256_of_bytes(content):
            stays = (
                f": {snapshot.offline.why}; the copy of commit {snapshot.commit[:12]} stays" if snapshot.offline else ""
            )
            report(f"{name}{stays or ' is up to date'}")
        else:
            _check_place(target, name, settings.out is None or held.record is not None)
            _bring(snapshot, content, target)
            source = f" from the cache, because {snapshot.offline.why}" if snapshot.offline else ""
            report(f"pulled {name}, commit {snapshot.commit[:12]}{source}")
        if held.record is None or (held.record.commit, held.record.revision) != (snapshot.commit, name.asked):
            write_record(target, _record_of(snapshot, content))
    return target


@contextmanager
def _advice(settings: PullSettings) -> Iterator[None]:
    """Says what to do if the folder of pulled bundles cannot be written."""
    try:
        yield
    except HubError:
        raise
    except SlmxError as error:
        if settings.out is None and isinstance(error.__cause__, OSError):
            raise SlmxError(f"{error}; choose another place with --out, or with XDG_DATA_HOME") from error
        raise


def _record_of(snapshot: Snapshot, content: bytes) -> Record:
    return Record(
        hub=hub_address(),
        repository=snapshot.name.repository,
        revision=snapshot.name.asked,
        commit=snapshot.commit,
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        manifest_sha256=sha256_of_bytes(content),
    )


def _check_place(target: Path, name: HubName, replace: bool) -> None:
    """Checks that a pull may replace what is in the target.

    Raises:
        SlmxError: The target holds something else than a bundle of this repository, or a file in it was changed.
    """
    if not target.is_dir() or not any(target.iterdir()):
        return
    if foreign := foreign_file(target, BUNDLE):
        raise SlmxError(
            f"{target}: {foreign} was added or changed there, and slmx never replaces such a file; "
            "move the folder away, then pull again"
        )
    if not replace:
        raise SlmxError(f"{target}: holds a bundle that was not pulled from {name.repository}; choose another --out")


def _bring(snapshot: Snapshot, content: bytes, target: Path) -> None:
    """Downloads every file that a manifest lists, and makes the folder of the bundle."""
    name = snapshot.name
    manifest = Manifest.read(content, f"{name}: {MANIFEST_FILE}")
    for file, entry in manifest.files.items():
        _check_size(snapshot, file, entry)
    with atomic_folder(target, BUNDLE, replace=True) as folder:
        for file, entry in manifest.files.items():
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            _copy(snapshot, file, entry, path)
        (folder / MANIFEST_FILE).write_bytes(content)


def _check_size(snapshot: Snapshot, file: str, entry: FileEntry) -> None:
    """Refuses a file that is missing or has another size, before anything is downloaded."""
    if snapshot.offline is None and file not in snapshot.sizes:
        raise HubError(snapshot.name, f"no {file} in this repository, which its {MANIFEST_FILE} lists; {ASK_OWNER}")
    size = snapshot.sizes.get(file)
    if size is not None and size != entry.bytes:
        raise HubError(
            snapshot.name,
            f"its {file} has {size:,} bytes, and its {MANIFEST_FILE} lists {entry.bytes:,}; {ASK_OWNER}",
        )


def _copy(snapshot: Snapshot, file: str, entry: FileEntry, path: Path) -> None:
    """Downloads a file and copies it. If the copy in the cache is damaged, the file is downloaded again."""
    was_held = snapshot.holds(file)
    if _copy_and_hash(snapshot.fetch(file), path) == entry.sha256:
        return
    if snapshot.offline is not None:
        why = f"{snapshot.offline.why}, and {file} in the cache is damaged"
        raise HubUnreachable(snapshot.name, why, snapshot.offline.advice)
    if was_held and _copy_and_hash(snapshot.fetch(file, again=True), path) == entry.sha256:
        return
    raise HubError(
        snapshot.name, f"its {file} is not the file that its {MANIFEST_FILE} lists (SHA-256 differs); {ASK_OWNER}"
    )


def _copy_and_hash(source: Path, path: Path) -> str:
    """Copies a file; returns the SHA-256 of what was copied. An OSError names no file, so it is one of the target."""
    digest = sha256()
    with source.open("rb") as old, path.open("wb") as new:
        while chunk := old.read(CHUNK):
            digest.update(chunk)
            new.write(chunk)
    return digest.hexdigest()
