"""The listing of a folder: the JSON file in it that names its other files, each with its SHA-256."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from slm.console.errors import SlmxError
from slm.storage.hashing import sha256_of
from slm.storage.read_errors import unreadable


@dataclass(frozen=True)
class Listing:
    """Where a kind of folder lists the SHA-256 of its files.

    Attributes:
        file: Name of the JSON file with the listing. It is written last.
        key: Key of the table from file name to SHA-256, or to an object whose `sha256` holds it.
        unlisted: Names of files that may be in the folder without a listed hash.
    """

    file: str
    key: str
    unlisted: tuple[str, ...] = ()

    def hashes(self, folder: Path) -> dict[str, str]:
        """Returns the listed SHA-256 by file name, or an empty table if the folder has no usable listing.

        Raises:
            PermissionError: The listing may not be read.
        """
        try:
            table = json.loads((folder / self.file).read_bytes())[self.key]
            return {name: entry if isinstance(entry, str) else entry["sha256"] for name, entry in table.items()}
        except PermissionError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {}


def check_file(path: Path, digest: str, listing: str, advice: str = "copy the folder again, whole") -> None:
    """Checks a file against the SHA-256 in the listing of its folder.

    Args:
        path: The file.
        digest: The listed SHA-256.
        listing: Name of the file with the listing.
        advice: What to do about a file that is missing or has other bytes.

    Raises:
        SlmxError: The file is missing, cannot be read, or has another SHA-256.
    """
    if not path.is_file():
        raise SlmxError(f"{path}: missing, but {listing} lists it; {advice}")
    try:
        found = sha256_of(path)
    except OSError as error:
        raise unreadable(path, error) from error
    if found != digest:
        raise SlmxError(f"{path}: truncated or altered (SHA-256 differs); {advice}")


@contextmanager
def not_replaced(listing: Path, sha256: str, what: str) -> Iterator[None]:
    """Guards the read of a folder, so that no error of a file hides that another folder took its place.

    Args:
        listing: The file with the listing, which was read.
        sha256: The SHA-256 of what was read.
        what: What the folder is, for the message.

    Raises:
        SlmxError: The listing is another one at the end, or cannot be read.
    """
    try:
        yield
    finally:
        try:
            found = sha256_of(listing)
        except OSError as error:
            raise unreadable(listing, error) from error
        if found != sha256:
            raise SlmxError(f"{listing.parent}: another {what} took its place while it was read; run the command again")


def write_listing(folder: Path, listing: Listing) -> None:
    """Writes the listing of a kind of folder that has no other use for it: the SHA-256 of every file in it."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    table: Mapping[str, str] = {name: sha256_of(folder / name) for name in names if name != listing.file}
    (folder / listing.file).write_text(json.dumps({listing.key: table}, indent=1) + "\n", "utf-8", newline="\n")
