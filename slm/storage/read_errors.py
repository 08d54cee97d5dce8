"""What slmx says when a file cannot be read."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from slm.console.errors import SlmxError
from slm.console.plain_text import as_plain_text

LONGEST_REASON = 200
# What to do after an error of the system, by its number.
ADVICE = {
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path",
    errno.EACCES: "check its permissions",
    errno.EPERM: "check its permissions",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def reason_of(error: BaseException) -> str:
    """Returns why something failed, on one line: the message of the system, the text of the error, or its class."""
    said = (isinstance(error, OSError) and error.strerror) or str(error)
    return as_plain_text(" ".join(said.split()))[:LONGEST_REASON] or type(error).__name__


def closed_folder(where: Path | str) -> Path | str:
    """Returns the first folder on the way to a path that may not be entered; the path itself if there is none."""
    folders = reversed(Path(where).parents)
    return next((folder for folder in folders if _is_closed(folder)), where)


def _is_closed(folder: Path) -> bool:
    try:
        folder.stat()
    except OSError as error:  # the current folder has no path that leads around it
        return error.errno == errno.EACCES
    return not os.access(folder, os.X_OK)


def unreadable(where: Path | str, error: BaseException, what: str = "", advice: str = "") -> SlmxError:
    """Returns the error of a file that cannot be read.

    Args:
        where: The file, or the name that the user gave it.
        error: Why it cannot be read.
        what: What was looked for in it, such as "the merges"; by default, the file itself.
        advice: What to do next, unless a permission is missing; by default, what its number stands for in `ADVICE`.
    """
    number = error.errno if isinstance(error, OSError) else None
    where = closed_folder(where) if number == errno.EACCES else where
    known = ADVICE.get(number or 0, "check the file")
    next_step = known if number in (errno.EACCES, errno.EPERM) else advice or known
    return SlmxError(f"{where}: cannot read{f' {what}' if what else ''} ({reason_of(error)}); {next_step}")
