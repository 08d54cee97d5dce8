"""The peak memory of a process is in bytes on every system, and the free memory is what a container may use."""

from __future__ import annotations

import resource
from pathlib import Path
from types import SimpleNamespace

import pytest

import slm.memory
from slm.memory import memory_bytes, peak_bytes


def test_linux_tells_it_in_kibibytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmPeak:\t 900 kB\nVmHWM:\t    300 kB\n", "utf-8")
    monkeypatch.setattr(slm.memory, "STATUS", status)
    assert peak_bytes() == 300 * 1024


@pytest.mark.parametrize(("platform", "unit"), [("freebsd", 1024), ("darwin", 1)])
def test_other_systems_tell_it_in_their_unit(
    platform: str, unit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slm.memory, "STATUS", tmp_path / "none")
    monkeypatch.setattr("slm.memory.sys.platform", platform)
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=3000))
    assert peak_bytes() == 3000 * unit


def test_memory_is_the_smaller_of_what_is_free_and_what_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meminfo = tmp_path / "meminfo"
    monkeypatch.setattr(slm.memory, "CGROUP", tmp_path)
    monkeypatch.setattr(slm.memory, "MEMINFO", meminfo)
    assert memory_bytes() is None
    meminfo.write_text("MemTotal:  100 kB\nMemAvailable:    64 kB\n", "utf-8")
    assert memory_bytes() == 64 * 1024
    (tmp_path / "memory.max").write_text("max\n", "utf-8")
    assert memory_bytes() == 64 * 1024
    (tmp_path / "memory.max").write_text("4096\n", "utf-8")
    assert memory_bytes() == 4096
