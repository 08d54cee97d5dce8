"""Folders that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from slm.errors import SlmxError

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


@contextmanager
def atomic_folder(target: Path, replace: bool) -> Iterator[Path]:
    """Yield a temporary folder beside `target` that takes its name when the block ends well.

    A failure or a kill leaves what stood at `target` before. SlmxError when `target` holds something
    and `replace` is false, when it or a folder above is a file, or when the disk is full or not writable.
    """
    target = target.absolute()
    work: Path | None = None
    missing: list[Path] = []
    try:
        if target.exists() and not target.is_dir():
            raise SlmxError(f"{target}: a file stands where the folder should go")
        if target.is_dir() and any(target.iterdir()) and not replace:
            raise SlmxError(f"{target}: not empty; choose another --out, or --force to replace it")
        missing = [folder for folder in target.parents if not folder.exists()]
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        fresh, old = work / "new", work / "old"
        fresh.mkdir()
        yield fresh
        try:
            if target.exists():
                target.rename(old)
            fresh.rename(target)
        except BaseException:
            if old.exists() and not target.exists():
                old.rename(target)
            raise
    except OSError as error:
        if error.errno in UNWRITABLE:
            raise SlmxError(
                f"{target}: cannot write ({os.strerror(error.errno)}); nothing was changed there"
            ) from error
        raise
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)
        for folder in missing:
            with suppress(OSError):  # it holds what was written
                folder.rmdir()
