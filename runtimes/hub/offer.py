"""A bundle as a repository on the hub offers it: file by file, or as one archive."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from runtimes.bundle.archive import MAX_BYTES
from runtimes.bundle.manifest import BUNDLE_LISTING, COMPANIONS, MAX_MANIFEST_BYTES, SIGNATURE_FILE, FileEntry, Manifest
from runtimes.bundle.store import Bundle
from runtimes.pack.envelope import MAX_SIGNATURE_BYTES
from slm.console.errors import SlmxError, needs
from slm.hub.client import Snapshot, open_snapshot
from slm.hub.errors import HubError, HubUnreachable
from slm.hub.name import HubName
from slm.storage.atomic import atomic_folder
from slm.storage.file_names import MANIFEST_FILE
from slm.storage.hashing import sha256_of_bytes
from slm.storage.json_reader import read_limited
from slm.storage.read_errors import reason_of

CHUNK = 2**20
NO_BUNDLE = "it is no bundle of slmx; slmx import may read it, if it is a model of another program"
ASK_OWNER = "nothing was kept; its owner must push it again"


class Offer(Protocol):
    """A bundle that can be brought.

    Attributes:
        snapshot: Where it is.
        manifest_sha256: SHA-256 of its manifest.
    """

    snapshot: Snapshot
    manifest_sha256: str

    def signature(self, key: Path) -> bytes:
        """Downloads the signature and checks it, before any file that it signs is asked for.

        Args:
            key: The file of the public key.

        Returns:
            The content of the signature's file.

        Raises:
            SlmxError: The bundle is not signed with this key, or the key cannot be used.
        """

    def write(self, target: Path, signature: bytes | None) -> None:
        """Makes the folder of the bundle. It appears whole or not at all.

        Args:
            target: The folder.
            signature: The content of the signature's file that goes there too; None writes none.

        Raises:
            SlmxError: A file is missing or is not the one that the manifest lists, or the folder cannot be written.
        """


class Loose:
    """A repository that holds the files of a bundle. Only those that the manifest lists are downloaded."""

    def __init__(self, name: HubName) -> None:
        self.snapshot = open_snapshot(name, MANIFEST_FILE, MAX_MANIFEST_BYTES, NO_BUNDLE)
        self._content = self.snapshot.first.read_bytes()
        self.manifest_sha256 = sha256_of_bytes(self._content)

    def signature(self, key: Path) -> bytes:
        """Downloads the signature and checks it, as in `Offer`."""
        path, content = _fetch_signature(self.snapshot, SIGNATURE_FILE)
        with tempfile.TemporaryDirectory(prefix="slmx-pull-") as folder:
            # In the cache the files are links to another folder, which a bundle must not have.
            (Path(folder) / MANIFEST_FILE).write_bytes(self._content)
            with _named(self.snapshot, Path(folder)):
                bundle = Bundle.open(Path(folder))
            _check_signature(self.snapshot, bundle, content, path, key)
        return content

    def write(self, target: Path, signature: bytes | None) -> None:
        """Makes the folder of the bundle, as in `Offer`."""
        manifest = Manifest.read(self._content, f"{self.snapshot.name}: {MANIFEST_FILE}")
        for file, entry in manifest.files.items():
            _check_size(self.snapshot, file, entry)
        with atomic_folder(target, BUNDLE_LISTING, replace=True) as folder:
            for file, entry in manifest.files.items():
                path = folder / file
                path.parent.mkdir(parents=True, exist_ok=True)
                _copy(self.snapshot, file, entry, path)
            (folder / MANIFEST_FILE).write_bytes(self._content)
            if signature is not None:
                (folder / SIGNATURE_FILE).write_bytes(signature)


class Packed:
    """An archive in a repository, as `slmx pack` writes it."""

    def __init__(self, name: HubName, file: str) -> None:
        self.snapshot = open_snapshot(name, file, MAX_BYTES, "check the name of the file")
        self._file = file
        try:
            self._bundle = self._open(self.snapshot.first)
        except SlmxError:
            if self.snapshot.offline is not None:
                raise
            self._bundle = self._open(self.snapshot.fetch(file, again=True))
        self.manifest_sha256 = self._bundle.manifest_sha256

    def _open(self, path: Path) -> Bundle:
        with _named(self.snapshot):
            bundle = Bundle.open(path)
            bundle.check_only_listed_files()
        return bundle

    def signature(self, key: Path) -> bytes:
        """Downloads the signature and checks it, as in `Offer`. The archive itself is here already."""
        path, content = _fetch_signature(self.snapshot, f"{self._file}{COMPANIONS[SIGNATURE_FILE]}")
        _check_signature(self.snapshot, self._bundle, content, path, key)
        return content

    def write(self, target: Path, signature: bytes | None) -> None:
        """Makes the folder of the bundle, as in `Offer`."""
        from runtimes.pack.packing import unpack_bundle

        unpack_bundle(self._bundle, target, True, signature)


def _fetch_signature(snapshot: Snapshot, file: str) -> tuple[Path, bytes]:
    """Downloads a signature; returns where it is and its content."""
    size = snapshot.sizes.get(file)
    if snapshot.offline is None and file not in snapshot.sizes:
        raise HubError(snapshot.name, f"not signed: no {file} in this repository; ask its owner for a signature")
    if size is not None and size > MAX_SIGNATURE_BYTES:
        raise HubError(snapshot.name, f"its {file} has {size:,} bytes, which no signature has; {ASK_OWNER}")
    path = snapshot.fetch(file)
    try:
        return path, read_limited(path, MAX_SIGNATURE_BYTES)
    except (OSError, ValueError) as error:
        raise HubError(snapshot.name, f"cannot read its {file} ({reason_of(error)}); {ASK_OWNER}") from None


def _check_signature(snapshot: Snapshot, bundle: Bundle, content: bytes, path: Path, key: Path) -> None:
    with needs("sign"):
        from runtimes.pack.signature import check_signature
    with _named(snapshot, bundle.path):
        check_signature(bundle, content, path, key)


@contextmanager
def _named(snapshot: Snapshot, folder: Path | None = None) -> Iterator[None]:
    """Makes errors name the repository in place of a folder that the user does not know."""
    try:
        yield
    except HubError:
        raise
    except SlmxError as error:
        text = str(error)
        for path in filter(None, (snapshot.folder, folder)):
            text = text.replace(str(path), str(snapshot.name))
        raise SlmxError(text) from error


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
