"""Which files of a folder slmx made: those that the folder's own listing names, unchanged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from slm.errors import SlmxError
from slm.hashing import sha256_of

# A work folder of slmx has this prefix before the name of its target (slm/atomic.py).
WORK_PREFIX = ".slmx-work-"


@dataclass(frozen=True)
class Listing:
    """Where a kind of folder lists the SHA-256 of its files.

    Attributes:
        file: Name of the JSON file with the listing. It is written last.
        key: Key of the table from file name to SHA-256, or to an object whose `sha256` holds it.
        unlisted: Names of files that may stand beside the listed ones without a hash.
    """

    file: str
    key: str
    unlisted: tuple[str, ...] = ()

    def hashes(self, folder: Path) -> dict[str, str]:
        """Returns the listed SHA-256 by file name, an empty table if the folder has no readable listing."""
        try:
            table = json.loads((folder / self.file).read_bytes())[self.key]
            return {name: entry if isinstance(entry, str) else entry["sha256"] for name, entry in table.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {}


CHECKPOINT = Listing("config.json", "sha256", unlisted=("optimizer.safetensors",))
DATA_SET = Listing("dataset.json", "files")
BUNDLE = Listing("manifest.json", "files", unlisted=("verification.json",))
REPORT = Listing("files.json", "files")


def foreign_file(folder: Path, listing: Listing) -> str | None:
    """Finds a file that slmx did not make, or that was changed since.

    Args:
        folder: The folder to look through, with its subfolders.
        listing: How this kind of folder lists its files.

    Returns:
        The path of the first such file, relative to the folder; None if every file is listed and unchanged.

    Raises:
        OSError: A file cannot be read.
    """
    hashes = listing.hashes(folder)
    known = {listing.file, *listing.unlisted} if hashes else set()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name.split("/")[0] == WORK_PREFIX + folder.name:
            continue
        if path.is_symlink() or not path.is_dir():
            if path.is_symlink() or not path.is_file():
                return name
            if name not in known and (name not in hashes or sha256_of(path) != hashes[name]):
                return name
    return None


def check_replaceable(target: Path, listing: Listing | None, replace: bool) -> bool:
    """Checks that a folder may take the place of `target`.

    Args:
        target: A folder, which may be missing.
        listing: How this kind of folder lists its files; None for a folder that is never replaced.
        replace: Whether the user asked for a replacement (--force).

    Returns:
        Whether `target` holds files that would be replaced.

    Raises:
        SlmxError: `target` is a file, it holds something and `replace` is false, or it holds a foreign file.
    """
    if target.exists() and not target.is_dir():
        raise SlmxError(f"{target}: a file stands where the folder should go; choose another --out")
    if not target.is_dir() or all(path.name == WORK_PREFIX + target.name for path in target.iterdir()):
        return False
    foreign = None if listing is None else foreign_file(target, listing)
    if foreign is not None:
        raise SlmxError(
            f"{target}: not empty: {foreign} was not made by slmx or was changed since, and slmx never replaces such "
            "a file; choose another --out"
        )
    if not replace:
        raise SlmxError(f"{target}: not empty; choose another --out, or --force to replace it")
    return True


def write_listing(folder: Path, listing: Listing) -> None:
    """Writes the listing of a folder that has none of its own: the SHA-256 of every file in it."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    table: Mapping[str, str] = {name: sha256_of(folder / name) for name in names if name != listing.file}
    (folder / listing.file).write_text(json.dumps({listing.key: table}, indent=1) + "\n", "utf-8")
