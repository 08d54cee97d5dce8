"""Which memory is returned or moved to large pages. Nothing else changes."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from runtimes.system import memory
from runtimes.system.memory import collapse_heap, heap_ranges, trim_heap
from tests import bundles

MIB = 2**20


def test_whole_pages_of_private_anonymous_memory() -> None:
    maps = [
        f"{1 * MIB:x}-{9 * MIB:x} rw-p 00000000 00:00 0 ",
        f"{10 * MIB:x}-{14 * MIB:x} rw-p 00000000 00:00 0                          [heap]",
        f"{20 * MIB:x}-{30 * MIB:x} rw-p 00000000 00:00 0                          [stack]",
        f"{30 * MIB:x}-{40 * MIB:x} rw-p 00000000 08:01 42                         /usr/lib/a library.so",
        f"{40 * MIB:x}-{50 * MIB:x} r--p 00000000 00:00 0 ",
        f"{51 * MIB:x}-{53 * MIB:x} rw-p 00000000 00:00 0 ",
    ]
    assert heap_ranges(maps, 2 * MIB) == [(2 * MIB, 8 * MIB), (10 * MIB, 14 * MIB)]


@pytest.mark.slow
@pytest.mark.skipif(not memory.PAGE_SIZE.exists(), reason="this system has no large pages")
def test_filled_memory_is_asked_for_and_keeps_its_content() -> None:
    size = int(memory.PAGE_SIZE.read_text("utf-8"))
    filled = np.arange(4 * size // 8, dtype=np.int64)
    empty = np.zeros(64 * size // 8, np.int64)
    assert collapse_heap() >= 2 * size
    resident = int(Path("/proc/self/statm").read_text("utf-8").split()[1])
    assert collapse_heap() >= 2 * size
    assert int(Path("/proc/self/statm").read_text("utf-8").split()[1]) - resident < 100
    np.testing.assert_array_equal(filled, np.arange(len(filled)))
    assert not empty.any()


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="this C library gives nothing back")
def test_freed_memory_goes_back() -> None:
    kept = []
    freed = [bytes(100_000) for _ in range(500)]
    kept.append(bytes(100_000))
    before = int(Path("/proc/self/statm").read_text("utf-8").split()[1])
    del freed
    trim_heap()
    after = int(Path("/proc/self/statm").read_text("utf-8").split()[1])
    assert (before - after) * os.sysconf("SC_PAGE_SIZE") > 30_000_000


def test_a_system_without_them_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "PAGE_SIZE", tmp_path / "none")
    assert collapse_heap() == 0
    monkeypatch.setattr(sys, "platform", "darwin")
    assert collapse_heap() == 0


def test_a_large_model_asks_and_a_small_one_does_not(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr("runtimes.engine.cache.collapse_heap", lambda: asked.append(True))
    bundle = bundles.tiny_bundle(tiny_checkpoint)
    bundles.session(bundle)
    assert asked == []
    monkeypatch.setattr("runtimes.engine.cache.LARGE_MODEL", 1000)
    bundles.session(bundle)
    assert asked == [True]
