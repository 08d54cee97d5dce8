"""Locks on folders that are being written, and the recovery of what a killed writer left.

A folder is built in a work folder beside its target. The work folder is inside the target if the target is a mount
point or the folder above is not writable. It has a fixed name, so the next writer of the same target finds it. It
belongs to slmx only if it holds OWNER_FILE.
"""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slm.console.errors import SlmxError
from slm.console.notice import log_line
from slm.console.plain_text import as_plain_text
from slm.storage.disk import WORK_NAME, is_mount_point, sync, write_advice
from slm.storage.read_errors import reason_of

if TYPE_CHECKING:
    from filelock import BaseFileLock

UNWRITABLE = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.ENAMETOOLONG,
    errno.ENOLCK,
    errno.ELOOP,
)
OWNER_FILE = "slmx-owner.json"
LOCK_FILE = "lock"
ACQUIRE_SECONDS = 0.2
MOST_MISSES = 1000


class FolderBusy(SlmxError):
    """Another process writes the folder."""


@dataclass(frozen=True)
class Place:
    """The target of a folder, and the work folder where it is built.

    Attributes:
        target: The folder itself. Symbolic links are resolved.
        work: The work folder of this target.
        fixed: Why the target cannot be renamed. Its files are then moved in one by one. Empty if it can be renamed.
    """

    target: Path
    work: Path
    fixed: str = ""

    @property
    def fresh(self) -> Path:
        """The folder that is being built."""
        return self.work / "new"

    @property
    def old(self) -> Path:
        """The replaced folder, until it is deleted."""
        return self.work / "old"

    @classmethod
    def of(cls, target: Path) -> Place:
        """Returns the place of a target, which may be missing; OSError if its symbolic links form a loop."""
        try:
            target = target.resolve()
        except RuntimeError as error:  # a loop of links, before Python 3.13
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from error
        beside = target.parent / f"{WORK_NAME}-{target.name}"
        if not target.is_dir():
            return cls(target, beside)
        if is_mount_point(target):
            return cls(target, target / WORK_NAME, "it is a mount point")
        if not os.access(target.parent, os.W_OK | os.X_OK):
            return cls(target, target / WORK_NAME, "the folder above is not writable")
        with suppress(FileNotFoundError):  # the working folder may be deleted
            if Path.cwd().is_relative_to(target):  # the user's shell would stay in the old folder
                return cls(target, beside, "it is the working folder")
        return cls(target, beside)


@contextmanager
def lock_folder(target: Path, wait: bool = False) -> Iterator[Place]:
    """Locks a folder against every other slmx process and every other thread inside the block.

    The same thread may lock a folder again while it holds the lock. What a killed writer left is repaired first: an
    incomplete swap is undone, and a folder that was being filled in place is completed. Of the target and its parents,
    those are removed at the end that were missing and are empty.

    Args:
        target: The folder; it and its parents need not exist.
        wait: Whether to wait for another writer, with a line on stderr, instead of refusing.

    Yields:
        The place of the folder.

    Raises:
        FolderBusy: Another process writes the folder and `wait` is false.
        SlmxError: The work folder cannot be made or is not one of slmx, or what a killed writer left cannot be
            repaired.
    """
    from filelock import FileLock

    with one_line(target):
        place = Place.of(target)
    missing = [folder for folder in (place.target, *place.work.parents) if not folder.exists()]
    try:
        lock = FileLock(place.work / LOCK_FILE, is_singleton=True)
        outer = not lock.is_locked
        with one_line(target):
            _acquire(lock, place, target, wait)
        try:
            if outer:
                with one_line(target):
                    settle(place)
                    _write_owner(place)
            yield place
        finally:
            if outer:
                _remove_work(place)
            lock.release()
    finally:
        for folder in missing:
            with suppress(OSError):  # a folder that is not empty stays
                folder.rmdir()


def _acquire(lock: BaseFileLock, place: Place, target: Path, wait: bool) -> None:
    from filelock import Timeout

    waits, misses = False, 0
    while True:
        try:
            place.work.mkdir(parents=True, exist_ok=True)
            names = {path.name for path in place.work.iterdir()}
            if names - {LOCK_FILE} and OWNER_FILE not in names:
                raise _foreign(place)
            lock.acquire(timeout=ACQUIRE_SECONDS)
            return
        # Another process ended between two of these calls and removed its work folder. Path.mkdir, which looks for the
        # folder after os.mkdir found it, then says that it exists.
        except (FileNotFoundError, FileExistsError):
            misses += 1
            if misses == MOST_MISSES and place.work.exists():
                raise _foreign(place) from None
            if misses == MOST_MISSES:
                raise SlmxError(f"{target}: cannot make a folder there; choose another --out") from None
        except Timeout:
            if not wait:
                raise FolderBusy(f"{target}: {_holder(place)}; wait for it, or choose another --out") from None
            if not waits:
                log_line(f"{target}: {_holder(place)}; waiting for it")
            waits = True


def _foreign(place: Place) -> SlmxError:
    return SlmxError(f"{place.work}: not a work folder of slmx, but it has the name of one; rename it")


def owner_record(place: Place, **more: object) -> bytes:
    """Returns the content of the owner file: who writes the folder, and, for `settle`, what is filled in place."""
    record = {"target": place.target.name, "pid": os.getpid(), "command": shlex.join(sys.argv)} | more
    return json.dumps(record).encode() + b"\n"


def _write_owner(place: Place) -> None:
    (place.work / OWNER_FILE).write_bytes(owner_record(place))


def _read_owner(place: Place) -> dict[str, Any]:
    try:
        record = json.loads((place.work / OWNER_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _holder(place: Place) -> str:
    record = _read_owner(place)
    if not record:
        return "another process is writing it"
    return as_plain_text(f"process {record.get('pid')} is writing it ({record.get('command')})")


def settle(place: Place) -> None:
    """Completes a folder that was being filled in place, undoes an incomplete swap, and deletes what is left over.

    Raises:
        SlmxError: A folder cannot be completed or moved back. Nothing was deleted.
    """
    record = _read_owner(place)
    removes, last = record.get("removes"), record.get("last")
    filling = isinstance(removes, list) and all(isinstance(name, str) for name in (*removes, last or ""))
    if isinstance(removes, list) and filling:
        fill(place, removes, last)
    elif place.old.is_dir() and place.fresh.is_dir():  # the writer was killed between its two renames
        try:
            place.old.rename(place.target)  # succeeds if the target is missing or an empty folder
        except OSError as error:
            raise SlmxError(
                f"{place.target}: what it held before is in {place.old}, left by a killed run; move one of the two away"
            ) from error
    for folder in (place.fresh, place.old):
        shutil.rmtree(folder, ignore_errors=True)
    if filling:  # the next folder that is built here must not be filled in place
        _write_owner(place)


def _remove_work(place: Place) -> None:
    if place.fresh.exists() or place.old.exists():  # they could not be settled
        return
    for path in (*place.work.glob(f"{WORK_NAME}-*"), place.work / OWNER_FILE, place.work / LOCK_FILE):
        with suppress(OSError):
            path.unlink()
    with suppress(OSError):
        place.work.rmdir()


def clear_leftovers(folder: Path) -> None:
    """Repairs and removes what killed writers left of the folders in `folder`. It does not disturb a running writer.

    Raises:
        SlmxError: As in `lock_folder`.
    """
    for work in folder.glob(f"{WORK_NAME}-*"):
        names = {path.name for path in work.iterdir()} if work.is_dir() else {work.name}
        if OWNER_FILE in names or names <= {LOCK_FILE}:
            with suppress(FolderBusy), lock_folder(folder / work.name.removeprefix(f"{WORK_NAME}-")):
                pass


def clear_leftover(target: Path) -> None:
    """Repairs and removes what a killed writer left of a folder that is complete. It does not disturb a running one."""
    with suppress(SlmxError, OSError):
        if Place.of(target).work.is_dir():
            with lock_folder(target):
                pass


@contextmanager
def one_line(target: Path, place: Place | None = None) -> Iterator[None]:
    """Turns an OSError of a full or unwritable disk into a SlmxError, unless it names a file outside of `place`."""
    try:
        yield
    except OSError as error:
        if error.errno not in UNWRITABLE or (place is not None and _is_elsewhere(error, place)):
            raise
        why = f"cannot write ({os.strerror(error.errno)}); nothing was changed there; {write_advice(error.errno)}"
        raise SlmxError(f"{target}: {why}") from error


def _is_elsewhere(error: OSError, place: Place) -> bool:
    """Returns whether an error is about a file that is neither in the work folder nor in the target."""
    if not isinstance(error.filename, str):
        return False
    path = Path(error.filename).absolute()
    return not path.is_relative_to(place.work) and not path.is_relative_to(place.target)


def fill(place: Place, removes: list[str], last: str | None) -> None:
    """Moves the fresh files into a target that cannot be renamed.

    The target is a folder of slmx again when it has its listing. After an interruption at any point, this function may
    be called again.

    Args:
        place: Where the files are and where they go.
        removes: Names of the old files that are not in the new folder.
        last: Name of the listing, which is removed first and written last; None if this kind of folder has none.

    Raises:
        SlmxError: A file could not be moved. The next call continues.
    """
    target, fresh = place.target, place.fresh
    wanted = [path.relative_to(fresh).as_posix() for path in fresh.rglob("*") if path.is_file()]
    if not wanted:
        return
    try:
        if last in wanted:
            (target / last).unlink(missing_ok=True)
            sync(target)
        for name in removes:
            path = Path(os.path.normpath(target / name))
            if path.is_relative_to(target):
                path.unlink(missing_ok=True)
                _remove_empty(path.parent, target)
        folders = {(target / name).parent for name in wanted} | {target}
        for name in sorted(wanted, key=lambda name: (name == last, name)):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            if name == last:
                for folder in folders:
                    sync(folder)
            os.replace(fresh / name, target / name)
        sync(target)
    except OSError as error:
        raise SlmxError(
            f"{target}: {reason_of(error)}; it is incomplete, and the files that it lacks are in {fresh}: "
            "the next slmx that writes there moves them in"
        ) from error


def _remove_empty(folder: Path, top: Path) -> None:
    """Removes an empty folder below `top`, and then each folder above it that became empty."""
    with suppress(OSError):
        while folder != top:
            folder.rmdir()
            folder = folder.parent
