"""Whether a terminal understands control sequences, and bold and dim text for one that does."""

from __future__ import annotations

import os
import sys

import typer

from slm.console.errors import SlmxError


def is_terminal() -> bool:
    """Returns whether stdout and stderr both go to a terminal that understands control sequences."""
    streams = (sys.stdout, sys.stderr)
    terminals = all(stream is not None and stream.isatty() for stream in streams)
    return terminals and os.environ.get("TERM", "dumb") != "dumb"


def need_stdout() -> None:
    """Checks that there is a standard output for results; SlmxError if it is closed."""
    if sys.stdout is None:
        raise SlmxError("standard output is closed: send it to a file, or to /dev/null")


def styled(text: str, *, bold: bool = False, dim: bool = False) -> str:
    """Returns bold or dim text, or plain text if NO_COLOR is set (no-color.org)."""
    return text if os.environ.get("NO_COLOR") else typer.style(text, bold=bold or None, dim=dim or None)
