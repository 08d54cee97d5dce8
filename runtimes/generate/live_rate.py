"""The current rate on the last line of a terminal.

A scroll region (DECSTBM) keeps the last line free. The cursor is saved before the line is written and restored after
it (DECSC, DECRC). ECMA-48 and the manual of the VT100 define these sequences.
"""

from __future__ import annotations

import os
import sys
import time

from slm.console.counted import counted
from slm.console.terminal import styled

EVERY = 0.1  # seconds between two figures


class LiveRate:
    """Shows tokens/s on the last line until the block ends. It shows nothing if `active` is false."""

    def __init__(self, active: bool) -> None:
        self._active = active
        self._lines = 0
        self._count = 0
        self._started = self._shown = time.perf_counter()

    def __enter__(self) -> LiveRate:
        return self

    def __exit__(self, *_: object) -> None:
        if self._lines:
            self._send(f"\x1b7\x1b[r\x1b[{self._lines};1H\x1b[2K\x1b8")
            self._lines = 0

    def add(self, tokens: int) -> None:
        """Takes the number of tokens written so far. The shown figure changes at most ten times a second."""
        now = time.perf_counter()
        if not self._active or now - self._shown < EVERY:
            return
        rate = (tokens - self._count) / (now - self._shown)
        self._count, self._shown = tokens, now
        lines = os.get_terminal_size(sys.stderr.fileno()).lines
        if lines > 2 and lines != self._lines:
            self._lines = lines
            # Index, then cursor up: this scrolls by a line if the cursor is on the last line, and keeps its column.
            self._send(f"\x1bD\x1b[A\x1b7\x1b[1;{lines - 1}r\x1b8")
        if self._lines:
            line = styled(f"{counted(tokens, 'token')}, {rate:,.0f} tokens/s", dim=True)
            self._send(f"\x1b7\x1b[{self._lines};1H\x1b[2K{line}\x1b8")

    @staticmethod
    def _send(sequence: str) -> None:
        sys.stdout.flush()
        sys.stderr.write(sequence)
        sys.stderr.flush()
