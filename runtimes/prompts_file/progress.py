"""Shows on stderr how far a run is: a line that changes on a terminal, a line now and then in a log."""

from __future__ import annotations

import os
import sys
import time

from slm.console.counted import counted, duration
from slm.console.terminal import styled

TERMINAL_SECONDS, LOG_SECONDS = 0.2, 30.0
CLEAR = "\r\x1b[2K"


class Progress:
    """The progress of one run.

    Args:
        total: The number of lines of the whole run; None if it is not known.
        done: How many lines earlier runs have written.
    """

    def __init__(self, total: int | None, done: int) -> None:
        self._total, self._before = total, done
        self._terminal = sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._every = TERMINAL_SECONDS if self._terminal else LOG_SECONDS
        self._started = self._shown = time.monotonic()
        self.tokens = 0
        self.rows = 0

    @property
    def rate(self) -> float:
        """Tokens/s of this run."""
        return self.tokens / max(time.monotonic() - self._started, 1e-9)

    def show(self, lines: int, failed: int) -> None:
        """Shows the progress if some time has passed.

        Args:
            lines: The number of lines that are done.
            failed: The number of rows that are errors.
        """
        now = time.monotonic()
        if sys.stderr is None or now - self._shown < self._every:
            return
        self._shown = now
        parts = [f"{lines:,} of {counted(self._total, 'line')}" if self._total is not None else counted(lines, "line")]
        parts.append(f"{self.rate:,.0f} tokens/s")
        if self._total is not None and lines > self._before:
            left = (self._total - lines) * (now - self._started) / (lines - self._before)
            parts.append(f"{duration(left)} left")
        if failed:
            parts.append(f"{failed:,} failed")
        text = ", ".join(parts)
        sys.stderr.write(CLEAR + styled(text, dim=True) if self._terminal else text + "\n")
        sys.stderr.flush()

    def end(self) -> None:
        """Removes the line from a terminal."""
        if self._terminal:
            sys.stderr.write(CLEAR)
            sys.stderr.flush()
