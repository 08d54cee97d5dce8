"""Limits of the machine, known problems, and the measurement of `slmx doctor`."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from runtimes.bundle.store import Bundle
from runtimes.checks.doctor import Findings, fatal_traps, look, quickest, traps
from runtimes.system.machine import cpu_features, cpu_fields, cpu_quota, memory_bytes, usable_cores
from tests import bundles
from tests.bundles import Slmx

pytestmark = pytest.mark.slow

HEALTHY = Findings(
    machine="x86_64",
    bits=64,
    board="",
    features=("avx2",),
    versions={"onnxruntime": "1.22.0", "numpy": "2.0", "tiktoken": "0.9"},
    cores=4,
    load=0.1,
    memory=2**30,
)


@pytest.mark.parametrize(
    ("content", "quota"),
    [("max 100000\n", None), ("50000 100000\n", 0.5), ("150000 100000", 1.5), ("250000 100000", 2.5), ("odd", None)],
)
def test_the_share_of_a_container_limits_the_cores(tmp_path: Path, content: str, quota: float | None) -> None:
    (tmp_path / "cpu.max").write_text(content, "utf-8")
    assert cpu_quota(tmp_path) == quota
    here = len(os.sched_getaffinity(0))
    assert usable_cores(tmp_path) == (here if quota is None else max(1, min(here, -int(-quota // 1))))


def test_without_a_control_group_every_core_counts(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None
    assert usable_cores(tmp_path) == len(os.sched_getaffinity(0))


def test_memory_is_the_smaller_of_what_is_free_and_what_is_allowed(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    assert memory_bytes(tmp_path, meminfo) is None
    meminfo.write_text("MemTotal:  100 kB\nMemAvailable:    64 kB\n", "utf-8")
    assert memory_bytes(tmp_path, meminfo) == 64 * 1024
    (tmp_path / "memory.max").write_text("max\n", "utf-8")
    assert memory_bytes(tmp_path, meminfo) == 64 * 1024
    (tmp_path / "memory.max").write_text("4096\n", "utf-8")
    assert memory_bytes(tmp_path, meminfo) == 4096


def test_features_are_read_on_x86_and_on_arm(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    assert cpu_fields(cpuinfo) == {}
    cpuinfo.write_text("model name\t: Some CPU\nflags\t\t: fpu avx2 avx512_vnni\n", "utf-8")
    assert cpu_features(cpu_fields(cpuinfo)) == ["avx2", "avx512_vnni"]
    cpuinfo.write_text("Features\t: fp asimd asimddp\n", "utf-8")
    assert cpu_features(cpu_fields(cpuinfo)) == ["asimddp"]


def test_a_healthy_machine_has_no_trap() -> None:
    assert [*traps(HEALTHY), *fatal_traps(HEALTHY)] == []
    assert look().bits == 64


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"features": ("avx512_bf16",)}, "no AVX2"),
        ({"load": 3.5}, "other programs want 3.5 cores (load average) and there are 4"),
        ({"memory": 90 * 2**20}, "90 MiB of memory left"),
    ],
)
def test_a_trap_is_named_with_the_way_out(changes: dict[str, object], said: str) -> None:
    (line,) = traps(replace(HEALTHY, **changes))  # type: ignore[arg-type]
    assert line.startswith(said)


PI_4 = replace(HEALTHY, machine="aarch64", board="Raspberry Pi 4 Model B", versions={"onnxruntime": "1.21.0"})


@pytest.mark.parametrize(
    ("found", "said"),
    [(replace(HEALTHY, bits=32), "32-bit system"), (PI_4, "onnxruntime 1.21.0 crashes on a Pi 4 when it loads")],
)
def test_what_keeps_it_from_running_stops_before_anything_is_loaded(
    slmx: Slmx, monkeypatch: pytest.MonkeyPatch, found: Findings, said: str
) -> None:
    (line,) = fatal_traps(found)
    assert line.startswith(said)
    monkeypatch.setattr("runtimes.checks.doctor.look", lambda: found)
    ran = slmx("doctor")
    assert ran.code == 1
    assert f"trap         {said}" in ran.stdout
    assert "quickest" not in ran.stdout


def test_looking_loads_no_onnxruntime(tmp_path: Path) -> None:
    code = "import sys, runtimes.checks.doctor as d; d.fatal_traps(d.look()); assert 'onnxruntime' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60)


def test_every_variant_is_measured_the_quickest_first(tiny_checkpoint: Path) -> None:
    bundle = Bundle.open(bundles.tiny_bundle(tiny_checkpoint))
    measured = quickest(bundle)
    assert set(measured) == {"fp32", "int8"}
    medians = [samples.median for samples in measured.values()]
    assert medians == sorted(medians)
    assert all(len(samples.values) >= 3 and min(samples.values) > 0 for samples in measured.values())


def test_the_command_says_which_variant_is_best(slmx: Slmx, tiny_checkpoint: Path) -> None:
    ran = slmx("doctor", "--bundle", bundles.tiny_bundle(tiny_checkpoint))
    assert ran.code == 0
    told = dict(line.split(maxsplit=1) for line in ran.stdout.splitlines())
    assert {"cpu", "cores", "memory", "limits", "onnxruntime", "int8", "fp32"} <= set(told)
    assert told["quickest"].split()[0] in ("int8", "fp32")
