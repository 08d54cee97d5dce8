"""Finds which files of a folder slmx made. They are the unchanged files that the folder's own listing names."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from slm.console.errors import NeedsForceError, SlmxError
from slm.storage.disk import WORK_NAME
from slm.storage.hashing import sha256_of
from slm.storage.listing import Listing

# Every ext4 file system has this folder at its top, so an empty volume holds it.
LOST_AND_FOUND = "lost+found"


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
    for entry in _entries(folder):
        for path in [entry, *sorted(entry.rglob("*"))] if entry.is_dir() and not entry.is_symlink() else [entry]:
            name = path.relative_to(folder).as_posix()
            if path.is_dir() and not path.is_symlink():
                continue
            if path.is_symlink() or not path.is_file():
                return name
            if sha256_of(path) != hashes[name] if name in hashes else name not in known:
                return name
    return None


def _entries(folder: Path) -> Iterator[Path]:
    """Yields the entries of a folder, sorted, without the temporary files and folders of slmx."""
    for path in sorted(folder.iterdir()):
        ours = path.name == WORK_NAME or (path.name.startswith(f"{WORK_NAME}-") and path.is_file())
        if not ours and not (path.name == LOST_AND_FOUND and _shows_nothing(path)):
            yield path


def _shows_nothing(folder: Path) -> bool:
    """Returns whether a folder is empty or cannot be read."""
    try:
        return folder.is_dir() and not any(folder.iterdir())
    except PermissionError:
        return True


def check_replaceable(target: Path, listing: Listing | None, replace: bool, fixed: str = "") -> bool:
    """Checks that a folder may take the place of `target`.

    Args:
        target: A folder, which may be missing.
        listing: How this kind of folder lists its files; None for a folder that is never replaced.
        replace: Whether the user asked for a replacement (--force).
        fixed: Why the folder cannot be renamed, so that a replacement is not atomic; empty if it can.

    Returns:
        Whether `target` holds files that would be replaced.

    Raises:
        SlmxError: `target` is a file, it holds something and `replace` is false, or it holds a foreign file.
    """
    if target.exists() and not target.is_dir():
        raise SlmxError(f"{target}: a file stands where the folder should go; choose another --out")
    if not target.is_dir() or not any(_entries(target)):
        return False
    if listing is None:
        raise SlmxError(f"{target}: not empty; choose another --out")
    if (target / listing.file).is_file() and not listing.hashes(target):
        raise SlmxError(
            f"{target}: not empty, and {listing.file} does not list the files, so slmx cannot know which are its own; "
            "choose another --out, or move the folder away"
        )
    foreign = foreign_file(target, listing)
    if foreign is not None and not (target / listing.file).is_file():
        raise SlmxError(
            f"{target}: not empty: it holds other files, such as {foreign}, and slmx writes only to a folder "
            "of its own; choose another --out"
        )
    if foreign is not None:
        raise SlmxError(
            f"{target}: not empty: {foreign} was not made by slmx or was changed since, and slmx never replaces such "
            "a file; move it away and use --force, or choose another --out"
        )
    if not replace:
        way = f" file by file, not in one step, because {fixed}" if fixed else ""
        raise NeedsForceError(f"{target}: not empty; choose another --out, or --force to replace it{way}")
    return True


def check_only_ours(folder: Path, ours: Collection[str], what: str) -> None:
    """Checks that a folder, in which slmx will work for a long time, holds nothing else.

    Args:
        folder: The folder, which may be missing.
        ours: The names of files and subfolders that may be in it.
        what: What the folder is for, for the message.

    Raises:
        SlmxError: `folder` is a file, or a file in it is not below one of the names.
    """
    if folder.exists() and not folder.is_dir():
        raise SlmxError(f"{folder}: a file stands where the folder should go; choose another --out")
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        name = path.relative_to(folder)
        if not path.is_dir() and name.parts[0] not in ours and not name.parts[0].startswith(WORK_NAME):
            raise SlmxError(f"{folder}: not empty: {name.as_posix()} is not of {what}; choose another --out")
