"""The folders in which slmx keeps files for one user."""

from __future__ import annotations

import os
from pathlib import Path

from slm.console.errors import SlmxError


def user_folder(variable: str, default: str, content: str) -> Path:
    """Returns the absolute path of a folder of slmx, which may be missing.

    It is in a folder of the user that the "XDG Base Directory Specification" of specifications.freedesktop.org or
    Windows defines. As the specification says, a relative path in the variable is ignored.

    Args:
        variable: The environment variable that names the folder of the user.
        default: That folder if the variable does not name it, from `~` on.
        content: What slmx keeps there, for the message.

    Raises:
        SlmxError: This user has no home folder.
    """
    stated = os.environ.get(variable, "")
    folder = Path(stated if os.path.isabs(stated) else os.path.expanduser(default))
    if not folder.is_absolute():
        raise SlmxError(f"no home folder for {content}: set {variable} to a folder")
    return folder / "slmx"
