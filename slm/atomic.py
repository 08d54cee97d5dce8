"""Folders and files that appear whole or not at all, and locks on folders that are being written.

A folder is built in a work folder and then swapped with its target in one step. The work folder stands beside the
target, or inside it where the target cannot be renamed. It has a fixed name, so the next writer of the same target
finds what a killed process left. It belongs to slmx only if it holds OWNER_FILE.

Source of the system calls: renameat2(2), flock(2), fsync(2) and proc_pid_mountinfo(5) of the Linux manual pages.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from slm.errors import SlmxError
from slm.ownership import WORK_PREFIX, Listing, check_replaceable, foreign_file

if TYPE_CHECKING:
    from filelock import FileLock

UNWRITABLE = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.ENAMETOOLONG,
)
OWNER_FILE = "slmx-owner.json"
LOCK_FILE = "lock"
MOUNTS = Path("/proc/self/mountinfo")
AT_FDCWD = -100
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)
ACQUIRE_SECONDS = 0.2


@dataclass(frozen=True)
class Place:
    """Where a folder goes and where it is built.

    Attributes:
        target: The folder itself; a symbolic link is resolved.
        work: The work folder of this target.
        in_place: Whether the target cannot be renamed, so that its files are moved in one by one.
    """

    target: Path
    work: Path
    in_place: bool

    @property
    def fresh(self) -> Path:
        """The folder that is being built."""
        return self.work / "new"

    @property
    def old(self) -> Path:
        """The replaced folder, while it is not deleted yet."""
        return self.work / "old"

    @classmethod
    def of(cls, target: Path) -> Place:
        """The place of a target, which may be missing."""
        resolved = target.resolve()
        in_place = resolved.is_dir() and (
            _is_mount_point(resolved) or not os.access(resolved.parent, os.W_OK | os.X_OK)
        )
        name = WORK_PREFIX + resolved.name
        return cls(resolved, (resolved if in_place else resolved.parent) / name, in_place)


def _is_mount_point(folder: Path) -> bool:
    if os.path.ismount(folder):
        return True
    try:  # a folder bound from the same file system has the same device
        lines = MOUNTS.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return False
    points = (line.split()[4].encode("utf-8", "surrogateescape").decode("unicode_escape") for line in lines)
    return os.fspath(folder) in {point.encode("latin-1").decode("utf-8", "surrogateescape") for point in points}


@contextmanager
def lock_folder(target: Path, wait: bool = False) -> Iterator[Place]:
    """Holds the only right to write a folder, against every other slmx process.

    The same thread may lock a folder again while it holds it. Leftovers of a killed writer are cleared first. If that
    writer had moved the old folder away and not yet moved the new one in, the old folder is brought back.

    Args:
        target: The folder; it and its parents need not exist.
        wait: Whether to wait for another writer, with a line on stderr, instead of refusing.

    Yields:
        The place of the folder.

    Raises:
        SlmxError: Another process writes the folder and `wait` is false, or the work folder cannot be made.
    """
    from filelock import FileLock

    try:
        place = Place.of(target)
    except (OSError, RuntimeError) as error:  # before Python 3.13 a circle of links is a RuntimeError
        raise SlmxError(f"{target}: cannot write ({getattr(error, 'strerror', None) or error})") from error
    missing = [folder for folder in place.work.parents if not folder.exists()]
    lock = FileLock(place.work / LOCK_FILE, is_singleton=True)
    outer = not lock.is_locked
    try:
        _acquire(lock, target, place.work, wait)
        if outer:
            _write_owner(place)
            _recover(place)
    except OSError as error:
        raise _unwritable(target, error) from error
    try:
        yield place
    finally:
        if outer:
            _clear(place)
            lock.release(force=True)
        else:
            lock.release()
        for folder in missing:
            with suppress(OSError):  # it holds what was written
                folder.rmdir()


def _acquire(lock: FileLock, target: Path, work: Path, wait: bool) -> None:
    """Acquires the lock in a work folder; the folder goes when the holder of the lock ends."""
    from filelock import Timeout

    announced = False
    while True:
        try:
            work.mkdir(parents=True, exist_ok=True)
            if not lock.is_locked and not _is_ours(work):
                raise SlmxError(f"{work}: not a work folder of slmx, but it has the name of one; rename it")
            lock.acquire(timeout=ACQUIRE_SECONDS)
            return
        except FileNotFoundError:
            continue
        except Timeout:
            if not wait:
                raise SlmxError(f"{target}: {_holder(work)}; wait for it, or choose another --out") from None
            if not announced:
                print(f"{target}: {_holder(work)}; waiting for it", file=sys.stderr, flush=True)
                announced = True


def _is_ours(work: Path) -> bool:
    """Whether a folder is a work folder of slmx: it is empty, or holds the owner file."""
    names = {path.name for path in work.iterdir()}
    return not names - {LOCK_FILE} or OWNER_FILE in names


def _write_owner(place: Place) -> None:
    record = {"target": place.target.name, "pid": os.getpid(), "command": shlex.join(sys.argv)}
    (place.work / OWNER_FILE).write_text(json.dumps(record) + "\n", "utf-8")


def _holder(work: Path) -> str:
    try:
        record = json.loads((work / OWNER_FILE).read_text("utf-8"))
        return f"process {record['pid']} is writing it ({record['command']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process is writing it"


def _recover(place: Place) -> None:
    """Brings back the old folder if a writer was killed between its two renames, and deletes other leftovers."""
    if place.old.is_dir() and not place.target.exists():
        place.old.rename(place.target)
    for folder in (place.fresh, place.old):
        shutil.rmtree(folder, ignore_errors=True)


def _clear(place: Place) -> None:
    for folder in (place.fresh, place.old):
        shutil.rmtree(folder, ignore_errors=True)
    for name in (OWNER_FILE, LOCK_FILE):
        with suppress(OSError):
            (place.work / name).unlink()
    with suppress(OSError):
        place.work.rmdir()


def clear_leftovers(folder: Path) -> None:
    """Recovers and clears what killed writers left of the folders inside `folder`; a running writer is left alone."""
    for work in folder.glob(WORK_PREFIX + "*"):
        with suppress(SlmxError, OSError):
            if work.is_dir() and (work / OWNER_FILE).is_file():
                with lock_folder(folder / work.name.removeprefix(WORK_PREFIX)):
                    pass


@contextmanager
def atomic_folder(target: Path, listing: Listing | None = None, replace: bool = False) -> Iterator[Path]:
    """Builds a folder that takes the name of `target` when the block ends without an error.

    A failure, a kill or a power cut leaves what stood at `target` before, or the new folder, whole. Only a target that
    cannot be renamed (a mount point, or a folder in a parent that is not writable) is filled file by file, the listing
    last. A symbolic link stays a link; the folder it points to is written.

    Args:
        target: The folder to make.
        listing: How this kind of folder lists its files; the block must write that file. None for a folder that is
            never replaced.
        replace: Whether a folder that slmx made may be replaced.

    Yields:
        An empty folder to fill.

    Raises:
        SlmxError: Another process writes the folder, it may not be replaced, or it cannot be written.
    """
    with lock_folder(target) as place:
        try:
            replaces = check_replaceable(place.target if place.in_place else target, listing, replace)
            if place.in_place and replaces:
                print(f"{target}: cannot be renamed, so its files are replaced one by one", file=sys.stderr)
            place.fresh.mkdir()
            yield place.fresh
            _sync(place.fresh)
            if place.in_place:
                check_replaceable(place.target, listing, replace)
                _fill(place, listing)
            elif not _swap(place, listing, replaces):
                raise SlmxError(f"{target}: another program wrote there meanwhile; the new folder is {_keep(place)}")
        except OSError as error:
            raise _unwritable(target, error) from error


def _unwritable(target: Path, error: OSError) -> Exception:
    if error.errno not in UNWRITABLE:
        return error
    return SlmxError(f"{target}: cannot write ({os.strerror(error.errno or 0)}); nothing was changed there")


def _sync(folder: Path) -> None:
    """Writes a folder's files and names to the disk."""
    for path in [*folder.rglob("*"), folder, folder.parent]:
        if path.is_file() or (path.is_dir() and os.name == "posix"):
            _sync_one(path)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # some file systems cannot
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _swap(place: Place, listing: Listing | None, replaces: bool) -> bool:
    """Gives the fresh folder the target's name; False, with nothing changed, if a foreign file came meanwhile."""
    target = place.target
    try:
        if not replaces:
            if target.exists() or not _renameat2(place.fresh, target, RENAME_NOREPLACE):
                place.fresh.rename(target)  # succeeds for an empty folder alone
        elif _renameat2(place.fresh, target, RENAME_EXCHANGE):
            if listing is None or foreign_file(place.fresh, listing) is not None:
                _renameat2(place.fresh, target, RENAME_EXCHANGE)
                return False
        else:
            target.rename(place.old)
            try:
                if listing is None or foreign_file(place.old, listing) is not None:
                    place.old.rename(target)
                    return False
                place.fresh.rename(target)
            except BaseException:
                place.old.rename(target)
                raise
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            return False
        raise
    _sync_one(target.parent)
    return True


def _keep(place: Place) -> Path:
    """Gives the fresh folder the first free name beside its target."""
    names = (place.target.with_name(f"{place.target.name}-{number}") for number in itertools.count(1))
    kept = next(path for path in names if not path.exists())
    place.fresh.rename(kept)
    return kept


def _renameat2(one: Path, other: Path, flags: int) -> bool:
    """Calls renameat2(2); False if this system has no such call or flag, OSError if it fails."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    if call is None:
        return False
    if call(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), flags) == 0:
        return True
    number = ctypes.get_errno()
    if number in UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), os.fspath(other))


def _fill(place: Place, listing: Listing | None) -> None:
    """Moves the files into a target that cannot be renamed; without its listing it is no folder of slmx."""
    target = place.target
    last = "" if listing is None else listing.file
    if last:
        (target / last).unlink(missing_ok=True)
    wanted = sorted(path.relative_to(place.fresh) for path in place.fresh.rglob("*") if path.is_file())
    for path in sorted(target.rglob("*"), reverse=True):
        name = path.relative_to(target)
        if place.work not in (path, *path.parents) and name not in wanted:
            if path.is_dir() and not path.is_symlink():
                with suppress(OSError):
                    path.rmdir()
            else:
                path.unlink()
    for name in sorted(wanted, key=lambda name: name.as_posix() == last):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(place.fresh / name, target / name)
        _sync_one((target / name).parent)


def write_file(path: Path, content: bytes) -> None:
    """Writes a file that appears whole or not at all.

    Args:
        path: The file; one that stands there is replaced and keeps its permissions.
        content: All of its bytes.

    Raises:
        OSError: The file cannot be written; what stood there is unchanged.
    """
    descriptor, name = tempfile.mkstemp(prefix=WORK_PREFIX, dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
        os.chmod(name, mode)
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
