"""Lines for people, broken between words on a terminal, and whole in a file or a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

# Receives one line for people, about what was done or what is under way. It does not end with a newline.
Log = Callable[[str], None]


def log_line(line: str) -> None:
    """Writes a line to stderr, or nowhere if it is closed: the `Log` of commands."""
    if sys.stderr is not None:
        print(line, file=sys.stderr, flush=True)


def print_notice(console: Console, line: str, style: str = "") -> None:
    """Prints a line as it is. rich does not colour numbers in it and reads no markup in names.

    Args:
        console: Where it goes.
        line: The line, of any length.
        style: A style of rich for all of it.
    """
    console.print(line, style=style, soft_wrap=not console.is_terminal, highlight=False, markup=False)
