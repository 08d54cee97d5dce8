"""`slmx pull`: brings a bundle from the hub. It appears whole, in one step, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from runtimes.bundle.location import DATA_HOME, pulled_bundles
from runtimes.bundle.manifest import BUNDLE_LISTING, SIGNATURE_FILE, is_plain_path
from runtimes.bundle.store import Bundle
from runtimes.hub.offer import Loose, Offer, Packed
from runtimes.hub.record import Record, read_record, write_record
from runtimes.pack.open_signed import check_key, open_signed
from slm.console.errors import SlmxError, UsageError
from slm.console.notice import Log
from slm.folder_kind import check_outside
from slm.hub.client import hub_address
from slm.hub.errors import HubError, HubUnreachable
from slm.hub.name import HubName
from slm.storage.disk import write_file
from slm.storage.locks import lock_folder, one_line
from slm.storage.ownership import foreign_file


@dataclass(frozen=True)
class PullSettings:
    """What to bring and where to.

    Attributes:
        name: OWNER/NAME or OWNER/NAME@REVISION.
        out: The folder of the bundle; None is OWNER/NAME in the folder of pulled bundles.
        file: The name of an archive in the repository; None if the repository holds the files of the bundle.
        key: The file of a public key, with which the bundle must be signed; None asks for no signature.
    """

    name: str
    out: Path | None = None
    file: str | None = None
    key: Path | None = None


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

    def is_from(self, name: HubName, file: str | None, commit: bool = False) -> bool:
        """Returns whether the bundle came from this revision and this archive of its repository.

        Args:
            name: The name that is pulled now.
            file: The archive that is pulled now.
            commit: Whether the revision must be the hash of the commit, so that the hub holds nothing newer.
        """
        record = self.record
        return (
            record is not None and record.file == file and name.asked == (record.commit if commit else record.revision)
        )


def pull_bundle(settings: PullSettings, log: Log) -> Path:
    """Brings a bundle from the hub, unless it is here already.

    Args:
        settings: What to bring and where to.
        log: Called with one line about what was done.

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
    if settings.file is not None and not is_plain_path(settings.file):
        raise UsageError(f"--file {settings.file}: no name of a file in a repository; name one such as nano.slmx")
    check_key(settings.key)
    target = settings.out or pulled_bundles() / name.repository
    check_outside(target)
    with _advice(settings), lock_folder(target, wait=True):
        held = Held.find(target, name.repository)
        if held.is_from(name, settings.file, commit=True) and settings.key is None:
            log(f"{name} is up to date")
            return target
        offer = _find_offer(name, settings.file)
        offline = offer if isinstance(offer, HubUnreachable) else offer.snapshot.offline
        if offline is not None and held.is_from(name, settings.file):
            open_signed(target, settings.key)
            log(f"{name}: {offline.why}; the copy that is here stays")
            return target
        if isinstance(offer, HubUnreachable):
            raise offer
        signature = None if settings.key is None else offer.signature(settings.key)
        if held.manifest_sha256 == offer.manifest_sha256:
            if signature is not None:
                with one_line(target):
                    write_file(target / SIGNATURE_FILE, signature)
            log(f"{name} is up to date")
        else:
            _check_place(target, name, settings.out is None or held.record is not None)
            offer.write(target, signature)
            source = f" from the cache, because {offline.why}" if offline else ""
            log(f"pulled {name}, commit {offer.snapshot.commit[:12]}{source}")
        record = _record_of(offer, settings.file)
        if held.record is None or replace(held.record, date=record.date) != record:
            write_record(target, record)
    return target


def _find_offer(name: HubName, file: str | None) -> Offer | HubUnreachable:
    """Returns what the hub or the cache offers; the error if there is no connection and nothing in the cache."""
    try:
        return Loose(name) if file is None else Packed(name, file)
    except HubUnreachable as error:
        return error


@contextmanager
def _advice(settings: PullSettings) -> Iterator[None]:
    """Says what to do if the folder of pulled bundles cannot be written."""
    try:
        yield
    except HubError:
        raise
    except SlmxError as error:
        if settings.out is None and isinstance(error.__cause__, OSError):
            raise SlmxError(f"{error}, with --out or {DATA_HOME}") from error
        raise


def _record_of(offer: Offer, file: str | None) -> Record:
    return Record(
        hub=hub_address(),
        repository=offer.snapshot.name.repository,
        revision=offer.snapshot.name.asked,
        commit=offer.snapshot.commit,
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        manifest_sha256=offer.manifest_sha256,
        file=file,
    )


def _check_place(target: Path, name: HubName, replace: bool) -> None:
    """Checks that a pull may replace what is in the target.

    Raises:
        SlmxError: The target holds something else than a bundle of this repository, or a file in it was changed.
    """
    if not target.is_dir() or not any(target.iterdir()):
        return
    if foreign := foreign_file(target, BUNDLE_LISTING):
        raise SlmxError(
            f"{target}: {foreign} was added or changed there, and slmx never replaces such a file; "
            "move the folder away, then pull again"
        )
    if not replace:
        raise SlmxError(f"{target}: holds a bundle that was not pulled from {name.repository}; choose another --out")
