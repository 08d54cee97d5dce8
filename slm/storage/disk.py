"""Writes files, exchanges folders and flushes them to the disk. A kill or a power cut leaves no half-written file.

The Linux manual pages renameat2(2), fsync(2) and proc_pid_mountinfo(5) describe the system calls.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from slm.console.errors import SlmxError
from slm.storage.read_errors import closed_folder

# The names of slmx's temporary files and folders begin with this.
WORK_NAME = ".slmx-work"
MOUNTS = Path("/proc/self/mountinfo")
AT_FDCWD = -100
RENAME_EXCHANGE = 2
UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)
# The errors of link(2) on a file system without hard links.
LINKLESS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class WriteError(OSError):
    """A file cannot be written. `filename` is the file that the caller named."""

    def __str__(self) -> str:
        where = closed_folder(self.filename) if self.errno == errno.EACCES else self.filename
        return f"{where}: cannot write ({self.strerror}); {write_advice(self.errno)}"


def write_advice(number: int | None) -> str:
    """Returns what to do after an error of writing."""
    if number == errno.ENAMETOOLONG:
        return "choose a shorter name"
    if number in FULL:
        return "free space there, or use another folder"
    if number in (errno.EACCES, errno.EPERM):
        return "check its permissions, or use another folder"
    return "check the disk, or use another folder" if number == errno.EIO else "use another folder"


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turns an OSError into a WriteError of `path`, unless it names another file. A temporary file counts as `path`.

    Args:
        path: The file that is written inside the block.
    """
    try:
        yield
    except OSError as error:
        named = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else path
        ours = named in (path, path.parent, path.resolve(), path.resolve().parent) or named.name.startswith(WORK_NAME)
        if error.strerror is None or not ours:
            raise
        raise WriteError(error.errno, error.strerror, os.fspath(path)) from error


def make_folder(path: Path) -> None:
    """Makes a folder, with its parents, in which files can be written. It may be there already.

    Raises:
        SlmxError: It cannot be made, or nothing can be written there.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SlmxError(f"{path}: cannot be made a folder ({error.strerror}); name another one") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise SlmxError(f"{path}: nothing can be written there; check its permissions, or name another folder")


def write_file(path: Path, content: bytes) -> None:
    """Writes a file that appears complete or not at all; arguments and errors as in `atomic_file`."""
    with atomic_file(path) as file:
        file.write(content)


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file that takes the name of `path` when the block ends without an error.

    Args:
        path: The file. An existing file is replaced, and its permissions are kept. A symbolic link is resolved.

    Yields:
        An empty file to write.

    Raises:
        WriteError: The file cannot be written. An existing file is unchanged.
        SlmxError: The file is written, but the disk did not confirm it.
    """
    with write_errors(path), _atomic_file(path.resolve()) as file:
        yield file


@contextmanager
def _atomic_file(path: Path) -> Iterator[IO[bytes]]:
    with _temporary(path.parent) as (file, name):
        yield file
        _finish(file, name, path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask())
        os.replace(name, path)
    confirm(path)


def write_new_file(path: Path, content: bytes, mode: int) -> None:
    """Writes a file that appears complete or not at all, and never in the place of another one.

    Args:
        path: The file.
        content: Its bytes.
        mode: Its permissions, without those that the umask takes away.

    Raises:
        WriteError: The file cannot be written, or there is one. Nothing is left.
    """
    with write_errors(path):
        with _temporary(path.parent) as (file, name):
            file.write(content)
            _finish(file, name, mode & ~_umask())
            try:
                os.link(name, path)
            except OSError as error:
                if error.errno not in LINKLESS:
                    raise
                if os.path.lexists(path):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(path)) from None
                os.rename(name, path)
            else:
                with suppress(OSError):  # the next writer here removes it
                    os.unlink(name)
        try:
            sync(path.parent)
        except OSError:
            with suppress(OSError):
                path.unlink()
            raise


def check_creatable(path: Path) -> None:
    """Checks that a file can be made here, and makes none; WriteError if not."""
    with write_errors(path):
        with suppress(FileNotFoundError):
            os.lstat(path)  # an error if the name is too long
        with _temporary(path.parent) as (file, name):
            file.close()  # Windows removes no open file
            os.unlink(name)


@contextmanager
def _temporary(folder: Path) -> Iterator[tuple[IO[bytes], str]]:
    """Yields a new file in a folder, and its name. After an error it is removed.

    After a kill, the next writer in the folder removes it: the file is locked as long as its writer runs.
    """
    clear_temporary(folder)
    descriptor, name = _locked_temporary(folder)
    held = os.dup(descriptor) if os.name == "posix" else None  # it keeps the lock when the file is closed
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file, name
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
    finally:
        if held is not None:
            os.close(held)


def _locked_temporary(folder: Path) -> tuple[int, str]:
    while True:
        descriptor, name = tempfile.mkstemp(prefix=f"{WORK_NAME}-", dir=folder)
        if _lock(descriptor) is not False and os.fstat(descriptor).st_nlink:
            return descriptor, name
        os.close(descriptor)  # another process just took it for a leftover


def _finish(file: IO[bytes], name: str, mode: int) -> None:
    """Flushes a temporary file to the disk and closes it."""
    file.flush()
    os.fsync(file.fileno())
    file.close()
    os.chmod(name, mode)


def _lock(descriptor: int) -> bool | None:
    """Locks an open file. Returns whether it was free, or None if this system or file system has no such locks."""
    if sys.platform == "win32":
        return None
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def is_temporary(name: str) -> bool:
    """Returns whether a name is one of slmx's temporary files."""
    return re.fullmatch(rf"{re.escape(WORK_NAME)}-[a-z0-9_]{{8}}", name) is not None


def clear_temporary(folder: Path) -> None:
    """Removes the temporary files that killed writers left in a folder, and none that a running writer has."""
    if sys.platform == "win32":
        return
    with suppress(OSError):
        for path in [path for path in folder.iterdir() if is_temporary(path.name)]:
            with suppress(OSError):
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    if stat.S_ISREG(os.fstat(descriptor).st_mode) and _lock(descriptor):
                        path.unlink()
                finally:
                    os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def exchange(one: Path, other: Path) -> bool:
    """Exchanges the names of two folders in one step, with renameat2(2).

    Returns:
        True if the names were exchanged; False if this system does not support it.

    Raises:
        OSError: The call failed. Nothing was changed.
    """
    import ctypes

    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    if call is None:
        return False
    if call(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), os.fspath(other))


def sync_tree(folder: Path) -> None:
    """Flushes a folder with all of its files and subfolders to the disk; OSError if the disk is full or fails."""
    for path in [*folder.rglob("*"), folder]:
        if path.is_dir() or path.is_file():
            sync(path)


def sync(path: Path) -> None:
    """Flushes a file or the names in a folder to the disk, if the system supports it; OSError as in `sync_tree`."""
    if os.name != "posix":  # Windows flushes only files that are open for writing
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)


def confirm(path: Path, *more: Path) -> None:
    """Flushes the new name of a file or folder to the disk.

    Args:
        path: The file or folder, complete under its name.
        more: Other folders whose names changed.

    Raises:
        SlmxError: The disk fails. Its line says that the new content is there.
    """
    try:
        for folder in (path.parent, *more):
            sync(folder)
    except OSError as error:
        raise SlmxError(
            f"{path}: written, but the disk did not confirm it ({error.strerror}); check the disk, "
            "then run the command again"
        ) from error


def is_mount_point(folder: Path) -> bool:
    """Returns whether a folder, given by its resolved path, is a mount point."""
    if os.path.ismount(folder):
        return True
    try:  # ismount compares devices only, so it misses a bind mount from the same file system
        lines = MOUNTS.read_bytes().splitlines()
    except OSError:
        return False
    points = (line.split()[4] for line in lines)
    return os.fsencode(folder) in {re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), p) for p in points}
