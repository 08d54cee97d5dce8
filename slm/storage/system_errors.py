"""What slmx says when a call of the system fails that nothing else explains, such as a write to a full disk."""

from __future__ import annotations

import errno
import os
import sys

from slm.storage.disk import FULL, WriteError, write_advice
from slm.storage.read_errors import ADVICE, closed_folder


def system_line(error: OSError) -> str:
    """Returns the line for an error of the system: where, the message of the system, and what to do next."""
    if isinstance(error, WriteError) or error.strerror is None:
        return str(error)
    where = error.filename or ("standard output" if error.errno == errno.ENOSPC and _stdout_is_full() else "")
    if error.errno == errno.EACCES and isinstance(where, str) and where:
        where = closed_folder(where)
    return f"{where}{': ' if where else ''}{error.strerror}{_advice(error.errno)}"


def _advice(number: int | None) -> str:
    """Returns what to do after an error of the system, with "; " before it; "" if there is no advice."""
    if number in (*FULL, errno.EIO, errno.EROFS):
        return f"; {write_advice(number)}"
    return f"; {ADVICE[number]}" if number in ADVICE else ""


def _stdout_is_full() -> bool:
    """Returns whether standard output is a file on a full disk, or a device that takes nothing."""
    try:
        os.write(1, b"")
        if sys.platform == "win32":
            return False
        disk = os.fstatvfs(1)
    except OSError as error:
        return error.errno == errno.ENOSPC
    return disk.f_blocks > 0 and disk.f_bavail == 0  # a pipe has no blocks
