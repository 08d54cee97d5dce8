"""Describes what a measurement depends on besides the code: the machine, its memory's speed, and other processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np

from benchmarks.child import ROOT
from benchmarks.peers import PeerKind
from benchmarks.report.warnings import busy_before
from runtimes.checks.doctor import limits
from runtimes.system.busy import BusyWatch
from runtimes.system.machine import describe_machine
from slm.memory import CGROUP, memory_bytes

GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
ARRAY_BYTES = 256 * 2**20
READS = 5
WATCHED = 1.0  # seconds in which other processes are watched


def environment(peers: Iterable[PeerKind]) -> dict[str, str]:
    """Returns facts that explain a figure: the machine, its limits, the commit, the versions of the peers' packages."""
    facts = describe_machine() | {"governor": _read(GOVERNOR) or "unknown", "limits": limits()}
    total = _total_memory()
    facts["memory"] = "unknown" if total is None else f"{total / 2**20:,.0f} MiB"
    facts["commit"] = _commit() or "unknown"
    found = {name: version for peer in peers for name, version in peer.versions.items()}
    return facts | {name: found[name] for name in sorted(found.keys() - facts.keys())}


def _read(path: Path) -> str | None:
    try:
        return path.read_text("utf-8").strip()
    except OSError:
        return None


def _total_memory() -> int | None:
    """Returns the memory of the machine or the limit of the container, whichever is smaller; None if unknown."""
    found = []
    with suppress(ValueError, OSError, AttributeError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with suppress(ValueError):
        found.append(int(_read(CGROUP / "memory.max") or "max"))
    return min(found, default=None)


def _commit() -> str | None:
    """Returns the commit of this code, marked if files are changed; None if the code is not in a git checkout."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        return None
    command = [
        "git",
        "--no-optional-locks",
        "-C",
        str(ROOT),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
        "--exclude=*",
    ]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or None


def read_bandwidth(threads: int) -> float:
    """Returns the bytes per second that `threads` threads read together, the best of five measurements.

    In each thread, numpy finds the maximum of 256 MiB of 64-bit integers (less if memory is short). It releases the
    interpreter's lock. The array is larger than the caches and is read once, in order, as a step reads the weights.
    """
    room = memory_bytes()
    size = ARRAY_BYTES if room is None else min(ARRAY_BYTES, room // (4 * threads))
    arrays = [np.ones(size // 8, np.int64) for _ in range(threads)]
    best = 0.0
    for _ in range(READS):
        workers = [threading.Thread(target=array.max) for array in arrays]
        started = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        best = max(best, threads * size / (time.perf_counter() - started))
    return best


def busy_now() -> str | None:
    """Watches for a second, and returns a warning if other processes are busy in it."""
    watch = BusyWatch()
    watch.start()
    time.sleep(WATCHED)
    share = watch.others()
    return None if share is None else busy_before(share)
