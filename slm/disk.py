"""Writes files, exchanges folders and flushes them to the disk. A kill or a power cut leaves no half-written file.

The Linux manual pages renameat2(2), fsync(2) and proc_pid_mountinfo(5) describe the system calls.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from slm.errors import SlmxError

# The names of slmx's temporary files and folders begin with this.
WORK_NAME = ".slmx-work"
MOUNTS = Path("/proc/self/mountinfo")
AT_FDCWD = -100
RENAME_EXCHANGE = 2
UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class WriteError(OSError):
    """A file cannot be written. `filename` is the file that the caller named."""

    def __str__(self) -> str:
        advice = "free space there, or use another folder" if self.errno in FULL else "use another folder"
        return f"{self.filename}: cannot write ({self.strerror}); {advice}"


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turns an OSError into a WriteError of `path`, unless it names another file. A temporary file is no other one.

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
    """
    with write_errors(path), _atomic_file(path.resolve()) as file:
        yield file


@contextmanager
def _atomic_file(path: Path) -> Iterator[IO[bytes]]:
    descriptor, name = tempfile.mkstemp(prefix=f"{WORK_NAME}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
        os.chmod(name, mode)
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
    sync(path.parent)


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
