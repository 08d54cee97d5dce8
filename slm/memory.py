"""The memory of this process, its peak, and the free memory of the machine.

It imports nothing large, because its users measure what imports cost.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from contextlib import suppress
from pathlib import Path

STATUS = Path("/proc/self/status")
STATM = Path("/proc/self/statm")
# Control group version 2, which the kernel's documentation describes (admin-guide/cgroup-v2.rst).
CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")


def memory_bytes() -> int | None:
    """Returns the available memory in bytes, at most the container's limit; None if neither can be read."""
    found = []
    with suppress(OSError, ValueError):
        (line,) = (row for row in MEMINFO.read_text("utf-8").splitlines() if row.startswith("MemAvailable:"))
        found.append(int(line.split()[1]) * 1024)
    with suppress(OSError, ValueError):  # "max" is no limit
        found.append(int((CGROUP / "memory.max").read_text("utf-8")))
    return min(found, default=None)


def resident_bytes() -> int:
    """Returns the resident memory of this process in bytes, on Linux; OSError elsewhere."""
    return int(STATM.read_text("ascii").split()[1]) * mmap.PAGESIZE


def peak_bytes() -> int:
    """Returns the largest resident memory of this process so far, in bytes.

    On Linux it is VmHWM, because ru_maxrss can be that of the parent process.
    """
    if sys.platform == "win32":
        return _peak_working_set()
    try:
        lines = STATUS.read_text("utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        import resource

        unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes on macOS, kilobytes elsewhere
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _peak_working_set() -> int:
    """Returns PeakWorkingSetSize of GetProcessMemoryInfo, on Windows; 0 if the call fails."""

    class Counters(ctypes.Structure):
        _fields_ = (
            ("size", ctypes.c_uint32),
            ("page_faults", ctypes.c_uint32),
            ("peak_working_set", ctypes.c_size_t),
            ("others", ctypes.c_size_t * 7),
        )

    kernel = ctypes.CDLL("kernel32")
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    kernel.K32GetProcessMemoryInfo.argtypes = (ctypes.c_void_p, ctypes.POINTER(Counters), ctypes.c_uint32)
    counters = Counters(size=ctypes.sizeof(Counters))
    done = kernel.K32GetProcessMemoryInfo(kernel.GetCurrentProcess(), ctypes.byref(counters), counters.size)
    return int(counters.peak_working_set) if done else 0
