"""The memory of this process, and of a command of slmx."""

from __future__ import annotations

import sys

# Runs slmx as a user does, and prints its own peak, because the ru_maxrss of a child includes the peak of the parent.
PROGRAM = """
from slm.cli import main
from slm.memory import peak_bytes
try:
    main()
except SystemExit as ended:
    if not ended.code:
        print("\\n" + str(peak_bytes()))
    raise
"""


def with_peak(*arguments: str) -> list[str]:
    """Returns a command of slmx that ends its output with its peak memory in bytes, if it does not fail."""
    return [sys.executable, "-c", PROGRAM, *arguments]


def peak_of(output: str) -> int:
    """Returns the peak memory at the end of the output of such a command."""
    return int(output.split()[-1])
