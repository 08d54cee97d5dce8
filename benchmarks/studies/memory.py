"""The memory of this process, and of a command of slmx."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

# Runs slmx as a user does, and prints its own peak, because the ru_maxrss of a child includes the peak of the parent.
PROGRAM = """
import atexit, sys
from slm.memory import peak_bytes
atexit.register(lambda: print(peak_bytes(), file=sys.stderr))
from slm.cli import main
main()
"""


def with_peak(*arguments: str) -> list[str]:
    """Returns a command of slmx that ends its stderr with its peak memory in bytes."""
    return [sys.executable, "-c", PROGRAM, *arguments]


def peak_of(stderr: str) -> int:
    """Returns the peak memory at the end of what such a command wrote to stderr."""
    return int(stderr.split()[-1])


def resident_bytes() -> int:
    """Returns the current resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * mmap.PAGESIZE
