"""Folders that all processes of a test run share, because they take long to make."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

SHARED_HOME = "SLMX_TESTS_SHARED"  # the environment variable with the folder that holds them


def made_once(name: str, make: Callable[[Path], object]) -> Path:
    """A folder that the first process that needs it makes. Tests must not change it.

    Args:
        name: Its name, the same for the same content.
        make: Makes the folder, which does not exist.
    """
    path = Path(os.environ[SHARED_HOME]) / name
    with FileLock(f"{path}.lock"):
        if not path.exists():
            make(path)
    return path
