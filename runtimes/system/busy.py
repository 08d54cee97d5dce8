"""Measures how much of the machine other processes use, from /proc."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

# The share of the cores that other processes may use without a warning.
BUSY = 0.05
# The shortest time to watch, in seconds. The kernel counts in hundredths of a second.
SHORTEST = 0.2


class BusyWatch:
    """Measures the share of the cores that other processes use between `start` and `others`.

    Their time is the busy time of all cores without the time of this process and its workers.

    Args:
        pids: Returns the ids of the workers.
        proc: The proc file system. If there is none, nothing is measured.
    """

    def __init__(self, pids: Callable[[], Iterable[int]] = tuple, proc: Path = Path("/proc")) -> None:
        self._pids = pids
        self._proc = proc
        self._before: tuple[float, float, float] | None = None

    def start(self) -> None:
        """Begins to measure."""
        self._before = self._sample()

    def others(self) -> float | None:
        """Returns the share of all cores that others used since `start`; None if it is at most 5 %, or unknown."""
        now = self._sample()
        if self._before is None or now is None or now[0] - self._before[0] < SHORTEST:
            return None
        elapsed, busy, own = (later - earlier for later, earlier in zip(now, self._before, strict=True))
        share = (busy - own) / (elapsed * (os.cpu_count() or 1))
        return share if share > BUSY else None

    def _sample(self) -> tuple[float, float, float] | None:
        """Returns the time, the busy seconds of all cores, and those of our processes; None without /proc."""
        ticks = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
        try:
            numbers = [int(text) for text in (self._proc / "stat").read_text("utf-8").split("\n", 1)[0].split()[1:9]]
        except (OSError, ValueError):
            return None
        user, nice, system, _idle, _wait, interrupts, soft, steal = numbers
        own = sum(os.times()[:4])
        for pid in self._pids():
            with suppress(OSError, ValueError, IndexError):
                fields = (self._proc / str(pid) / "stat").read_text("utf-8").rpartition(")")[2].split()
                own += sum(int(value) for value in fields[11:15]) / ticks
        return time.perf_counter(), (user + nice + system + interrupts + soft + steal) / ticks, own
