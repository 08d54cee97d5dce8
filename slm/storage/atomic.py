"""Folders that appear whole or not at all.

A folder is built in a work folder (slm/storage/locks.py) and then exchanged with its target in one step. A target
that cannot be renamed is filled file by file.
"""

from __future__ import annotations

import errno
import itertools
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slm.console.errors import SlmxError
from slm.console.notice import log_line
from slm.storage.disk import confirm, exchange, sync_tree, write_file
from slm.storage.listing import Listing
from slm.storage.locks import OWNER_FILE, Place, fill, lock_folder, one_line, owner_record, settle
from slm.storage.ownership import check_replaceable, foreign_file

# The errors of rename(2) for a folder from a lower layer of an overlay, and for a mount point.
UNMOVABLE = (errno.EXDEV, errno.EBUSY)
TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


@contextmanager
def atomic_folder(target: Path, listing: Listing | None = None, replace: bool = False) -> Iterator[Path]:
    """Builds a folder that takes the name of `target` when the block ends without an error.

    After a failure, a kill or a power cut, `target` holds either its old content or the new folder, complete. If
    `target` is a symbolic link, the folder that it points to is written. A target that cannot be renamed (a mount
    point, a folder in a parent that is not writable, the working folder) is filled file by file, the listing last. If
    that is interrupted, the next writer of the target completes it.

    Args:
        target: The folder to make.
        listing: How this kind of folder lists its files; the block must write that file. None for a folder that is
            never replaced.
        replace: Whether a folder that slmx made may be replaced.

    Yields:
        An empty folder to fill.

    Raises:
        SlmxError: Another process writes the folder, the folder may not be replaced, or it cannot be written.
    """
    with lock_folder(target) as place:
        try:
            with one_line(target, place):
                replaces = check_replaceable(target, listing, replace, place.fixed)
                if replaces and place.fixed:
                    _warn_of_filling(target, place.fixed)
                place.fresh.mkdir()
                yield place.fresh
                sync_tree(place.fresh)
                _publish(target, place, listing, replaces)
        finally:
            settle(place)


def check_target(target: Path, listing: Listing, replace: bool) -> None:
    """Checks before long work that `atomic_folder` will take a folder. It checks again, because the folder can change.

    Args:
        target: The folder to make.
        listing: How this kind of folder lists its files.
        replace: Whether a folder that slmx made may be replaced.

    Raises:
        SlmxError: As in `atomic_folder`.
    """
    with lock_folder(target) as place, one_line(target, place):
        check_replaceable(target, listing, replace, place.fixed)


def _warn_of_filling(target: Path, reason: str) -> None:
    log_line(f"{target}: its files are replaced one by one, not in one step, because {reason}")


def _publish(target: Path, place: Place, listing: Listing | None, replaces: bool) -> None:
    """Moves the fresh folder to the target.

    Raises:
        SlmxError: Another program added a file to the target meanwhile. The old folder is kept.
    """
    try:
        if not place.fixed:
            kept = _swap(place, listing, replaces)
            if kept:
                raise SlmxError(
                    f"{target}: another program wrote there meanwhile; {' and '.join(kept)}; nothing was deleted"
                )
            return
    except OSError as error:
        if error.errno not in UNMOVABLE:
            raise
        if replaces:
            _warn_of_filling(target, "the system cannot rename it")
    check_replaceable(target, listing, replaces, place.fixed)
    old = (*listing.hashes(place.target), *listing.unlisted) if listing is not None and replaces else ()
    removes = [name for name in old if not (place.fresh / name).is_file()]
    last = None if listing is None else listing.file
    write_file(place.work / OWNER_FILE, owner_record(place, removes=removes, last=last))
    fill(place, removes, last)


def _swap(place: Place, listing: Listing | None, replaces: bool) -> list[str]:
    """Gives the fresh folder the target's name.

    Returns:
        A phrase with the place of each folder that was kept because another program wrote to the target meanwhile.
    """
    target, fresh, old = place.target, place.fresh, place.old
    if replaces:
        assert listing is not None
        shutil.copymode(target, fresh)
        if exchange(fresh, target):
            ours = False
            try:
                ours = foreign_file(fresh, listing) is None
            finally:
                if not ours:
                    exchange(fresh, target)
            if not ours:
                return [_keep(fresh, target, "new")]
            confirm(target, place.work)
            return []
        target.rename(old)
        if foreign_file(old, listing) is not None:
            old.rename(target)
            return [_keep(fresh, target, "new")]
    try:
        fresh.rename(target)  # succeeds if the target is missing or an empty folder
    except OSError as error:
        if error.errno not in TAKEN:
            raise
        earlier = [_keep(old, target, "earlier")] if old.exists() else []
        return [_keep(fresh, target, "new"), *earlier]
    confirm(target, place.work)
    return []


def _keep(folder: Path, target: Path, what: str) -> str:
    """Renames a folder to the first free name beside its target, and returns a phrase with that name."""
    names = (target.with_name(f"{target.name}-{number}") for number in itertools.count(1))
    kept = next(path for path in names if not path.exists())
    folder.rename(kept)
    return f"the {what} folder is {kept}"


def remove_folder(target: Path, listing: Listing) -> None:
    """Deletes a folder as a whole, unless it holds a file that slmx did not make.

    Args:
        target: The folder.
        listing: How this kind of folder lists its files.

    Raises:
        OSError: It cannot be deleted.
        SlmxError: As in `lock_folder`.
    """
    with lock_folder(target) as place:
        if foreign_file(place.target, listing) is None:
            place.target.rename(place.old)
            settle(place)
