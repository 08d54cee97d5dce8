"""The heap of a loaded model: freed memory is returned to the system, and large weights move to large pages.

With large pages, a step that reads tens of megabytes needs fewer page table look-ups. From version 6.1 on, Linux can
move memory that is already in use to large pages (madvise(2), MADV_COLLAPSE).
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from pathlib import Path

import numpy as np

MADV_COLLAPSE = 25
FILLED = 0.9  # a large page must be in use to this share, so that moving there takes hardly more memory
PAGE_SIZE = Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")
MAPS = Path("/proc/self/maps")


def trim_heap() -> None:
    """Returns freed memory to the system if the C library can (malloc_trim(3)). Loading a model frees much memory."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def collapse_heap() -> int:
    """Moves the parts of this process's heap that fill large pages to large pages.

    If the system refuses, only the speed differs.

    Returns:
        The number of bytes of the requests; 0 if the system has no large pages.
    """
    if sys.platform != "linux":
        return 0
    try:
        size = int(PAGE_SIZE.read_text("utf-8"))
        lines = MAPS.read_text("utf-8").splitlines()
    except (OSError, ValueError):
        return 0
    libc, small = ctypes.CDLL(None), mmap.PAGESIZE
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    asked = 0
    for start, end in heap_ranges(lines, size):
        resident = np.zeros((end - start) // small, np.uint8)
        libc.mincore(start, end - start, resident.ctypes.data)
        filled = (resident & 1).reshape(-1, size // small).mean(axis=1) >= FILLED
        for page in filled.nonzero()[0].tolist():
            libc.madvise(start + page * size, size, MADV_COLLAPSE)
            asked += size
    return asked


def heap_ranges(maps: list[str], size: int) -> list[tuple[int, int]]:
    """Returns the address ranges of private anonymous memory, cut to whole pages of `size` bytes.

    `maps` are the lines of /proc/self/maps (proc_pid_maps(5)).
    """
    ranges = []
    for line in maps:
        addresses, permissions, _, _, inode, *name = line.split(maxsplit=5)
        if permissions != "rw-p" or inode != "0" or name not in ([], ["[heap]"]):
            continue
        start, end = (int(address, 16) for address in addresses.split("-"))
        first, last = -(-start // size) * size, end // size * size
        if first < last:
            ranges.append((first, last))
    return ranges
