"""Limits of the machine, known problems, and the measurement of `slmx doctor`."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from runtimes.bundle.store import Bundle
from runtimes.checks.doctor import Findings, Way, choose, fatal_problems, look, measure_ways, slowdowns, thread_counts
from runtimes.system.machine import (
    cpu_features,
    cpu_fields,
    cpu_name,
    cpu_quota,
    temperature,
    top_megahertz,
    usable_cores,
)
from runtimes.system.timing import Samples
from slm.console.counted import counted
from tests import bundles
from tests.bundles import Slmx
from tests.runtimes.checks.ways import INT4, INT8, Q8, TWO, seconds

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def short_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the command measure for a tenth of its time."""
    monkeypatch.setattr("runtimes.checks.doctor.SECONDS", 0.3)
    monkeypatch.setattr("runtimes.checks.doctor.ROUND_SECONDS", 0.1)


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


def test_features_are_read_on_x86_and_on_arm(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    assert cpu_fields(cpuinfo) == {}
    cpuinfo.write_text("model name\t: Some CPU\nflags\t\t: fpu avx2 avx512_vnni\n", "utf-8")
    assert cpu_features(cpu_fields(cpuinfo)) == ["avx2", "avx512_vnni"]
    cpuinfo.write_text("Features\t: fp asimd asimddp\n", "utf-8")
    assert cpu_features(cpu_fields(cpuinfo)) == ["asimddp"]


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"CPU implementer": "0x41", "CPU part": "0xd03"}, "Cortex-A53"),
        ({"CPU implementer": "0x41", "CPU part": "0xd08", "model name": "ARMv8 Processor rev 3"}, "Cortex-A72"),
        ({"CPU implementer": "0x41", "CPU part": "0xd0b"}, "Cortex-A76"),
        ({"CPU implementer": "0x61", "CPU part": "0xd03"}, ""),
        ({"CPU implementer": "0x41", "CPU part": "0xfff", "model name": "Some CPU"}, "Some CPU"),
        ({"model name": "Some CPU"}, "Some CPU"),
        ({}, ""),
    ],
)
def test_an_arm_processor_is_named_by_its_number(fields: dict[str, str], name: str) -> None:
    """Linux on a Raspberry Pi gives no model name."""
    assert cpu_name(fields) == name


def test_temperature_and_frequency_are_read_if_the_system_tells_them(tmp_path: Path) -> None:
    file = tmp_path / "value"
    assert temperature(file) is top_megahertz(file) is None
    file.write_text("48312\n", "utf-8")
    assert temperature(file) == 48.312
    file.write_text("1800000\n", "utf-8")
    assert top_megahertz(file) == 1800
    file.write_text("none\n", "utf-8")
    assert temperature(file) is None


def test_a_healthy_machine_has_no_problem() -> None:
    assert [*slowdowns(HEALTHY), *fatal_problems(HEALTHY)] == []
    assert look().bits == 64


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"features": ("avx512_bf16",)}, "no AVX2"),
        ({"load": 3.5}, "other programs want 3.5 cores (load average) and there are 4"),
        ({"memory": 90 * 2**20}, "90 MiB of memory left"),
    ],
)
def test_a_problem_is_named_with_the_way_out(changes: dict[str, object], said: str) -> None:
    (line,) = slowdowns(replace(HEALTHY, **changes))  # type: ignore[arg-type]
    assert line.startswith(said)


PI_4 = replace(HEALTHY, machine="aarch64", board="Raspberry Pi 4 Model B", versions={"onnxruntime": "1.21.0"})


@pytest.mark.parametrize(
    ("found", "said"),
    [(replace(HEALTHY, bits=32), "32-bit system"), (PI_4, "onnxruntime 1.21.0 crashes on a Pi 4 when it loads")],
)
def test_what_keeps_it_from_running_stops_before_anything_is_loaded(
    slmx: Slmx, monkeypatch: pytest.MonkeyPatch, found: Findings, said: str
) -> None:
    (line,) = fatal_problems(found)
    assert line.startswith(said)
    monkeypatch.setattr("runtimes.checks.doctor.look", lambda: found)
    ran = slmx("doctor")
    assert ran.code == 1
    assert f"problem      {said}" in ran.stdout
    assert "quickest" not in ran.stdout


def test_looking_loads_no_onnxruntime(tmp_path: Path) -> None:
    code = (
        "import sys, runtimes.checks.doctor as d; d.fatal_problems(d.look()); assert 'onnxruntime' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60)


def test_every_way_is_measured_the_quickest_first(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtimes.checks.doctor.usable_cores", lambda: 2)
    bundle = Bundle.open(bundles.tiny_bundle(tiny_checkpoint))
    measured = measure_ways(bundle)
    assert set(measured) == {Way(name, threads) for name in ("fp32", "int8") for threads in (1, 2)}
    medians = [samples.median for samples in measured.values()]
    assert medians == sorted(medians)
    assert all(len(samples.values) >= 3 and min(samples.values) > 0 for samples in measured.values())


@pytest.mark.parametrize(("cores", "counts"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (4, [1, 2, 4]), (64, [1, 2, 4])])
def test_numbers_of_threads_go_up_to_the_cores(cores: int, counts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtimes.checks.doctor.usable_cores", lambda: cores)
    assert thread_counts() == counts


def test_the_command_says_which_way_is_best_and_which_is_the_default(slmx: Slmx, tiny_checkpoint: Path) -> None:
    ran = slmx("doctor", "--bundle", bundles.tiny_bundle(tiny_checkpoint))
    assert ran.code == 0
    told = dict(line.split(maxsplit=1) for line in ran.stdout.splitlines())
    assert {"cpu", "cores", "memory", "limits", "onnxruntime", "int8", "fp32"} <= set(told)
    assert re.match(r"(int8|fp32), \d threads?$|unknown, because the speeds differ too much", told["quickest"])
    assert re.fullmatch(r"\d threads? +[\d,]+ tokens/s, spread \d+%, bits per byte [+-]\d\.\d\d%", told["int8"])
    assert re.fullmatch(r"\d threads? +[\d,]+ tokens/s, spread \d+%", told["fp32"])
    assert told["default"].startswith("int8, 1 thread")
    assert told["pinned"].startswith("nothing for this bundle")


def test_what_a_variant_loses_is_told_as_it_was_read(
    slmx: Slmx, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = bundles.tiny_bundle_of_all(tiny_checkpoint)
    figures = {name: entry.figures.quality for name, entry in Bundle.open(bundle).manifest.variants.items()}
    ways = {way: seconds(1.0 + number) for number, way in enumerate([INT4, INT8, Way("mobile", 1), Way("fp16", 1)])}
    monkeypatch.setattr("runtimes.checks.doctor.measure_ways", lambda bundle: ways)
    lines = slmx("doctor", "--bundle", bundle).stdout.splitlines()
    told = dict(line.split(maxsplit=1) for line in lines)
    for name in ("int8", "int4"):
        quality = figures[name]
        assert quality is not None
        assert quality.decode is not None
        assert told[name].endswith(f", bits per byte {quality.decode.bpb_increase:+.2%}")
    assert told["mobile"].partition(", bits")[2] == told["int8"].partition(", bits")[2], "the same model"
    assert told["fp16"].endswith("%")
    assert told["quickest"] == "int8, 1 thread"
    assert told["not"] == "chosen   int4: may lose more than 1%; --variant takes it"


def test_a_bundle_for_pytorch_alone_is_one_line(slmx: Slmx, tmp_path: Path) -> None:
    bundle = bundles.with_torchscript(bundles.shipped_bundle(), tmp_path / "b", alone=True)
    ran = slmx("doctor", "--bundle", bundle)
    said = f"slmx: {bundle}: no variant for onnxruntime in this bundle; export it again with --int8\n"
    assert (ran.code, ran.stderr) == (1, said)


@pytest.mark.parametrize(
    ("measured", "kept", "equal"),
    [
        ({INT8: seconds(1.0), TWO: seconds(1.5)}, INT8, []),
        ({TWO: seconds(1.0), INT8: seconds(1.5)}, TWO, []),
        ({TWO: seconds(1.0), INT8: seconds(1.04)}, INT8, [TWO]),
        ({TWO: seconds(1.0, 0.2), INT8: seconds(1.3, 0.2)}, INT8, [TWO]),
        ({INT8: seconds(1.0, 0.1), TWO: seconds(1.6), Q8: seconds(2.0, 0.6)}, INT8, []),
        ({TWO: seconds(1.0), Q8: seconds(1.02), INT8: seconds(1.5)}, Q8, [TWO]),
        ({INT4: seconds(1.0), TWO: seconds(2.0), INT8: seconds(2.5)}, TWO, []),
        ({INT4: seconds(1.0)}, INT4, []),
    ],
    ids=lambda one: None,
)
def test_what_is_equally_quick_is_told_and_the_default_is_kept(
    measured: dict[Way, Samples], kept: Way, equal: list[Way]
) -> None:
    """int4 loses too much to be chosen unless it is alone."""
    assert choose(measured, INT8) == (kept, equal)


@pytest.mark.parametrize(
    ("exact", "word"),
    [
        (True, "signed, which this processor multiplies exactly"),
        (False, "unsigned: it does not multiply signed weights exactly"),
    ],
)
def test_the_form_of_the_weights_in_memory_is_told(
    slmx: Slmx, tiny_checkpoint: Path, exact: bool, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtimes.engine.exact_products.signed_is_exact", lambda: exact)
    ran = slmx("doctor", "--bundle", bundles.tiny_bundle(tiny_checkpoint))
    assert f"weights      those of int8 are {word}" in ran.stdout


def test_the_report_is_one_json_line_with_the_machine_and_every_variant(slmx: Slmx, tiny_checkpoint: Path) -> None:
    bundle = Bundle.open(bundles.tiny_bundle(tiny_checkpoint))
    ran = slmx("doctor", "--bundle", bundle.path, "--report")
    assert ran.code == 0
    *lines, last = ran.stdout.splitlines()
    row = json.loads(last)
    assert row["doctor"] == 1
    assert row["machine"] == platform.machine()
    assert row["python"] == platform.python_version()
    assert set(row["versions"]) == {"slmx", "onnxruntime", "numpy", "tiktoken"}
    assert (row["model"], row["bundle"]) == (bundle.manifest.preset, bundle.manifest_sha256)
    assert set(row["variants"]) == {"fp32", "int8"}
    shown = " ".join(" ".join(lines).split())
    for name, figures in row["variants"].items():
        assert set(figures) == {"tokens_per_second", "spread", "threads"}
        rates = re.findall(f"{name} {counted(figures['threads'], 'thread')} ([0-9,]+) tokens/s", shown)
        assert figures["tokens_per_second"] in [pytest.approx(float(rate.replace(",", "")), abs=0.6) for rate in rates]
    assert 0 < row["seconds"] < 600


def test_the_report_names_neither_this_machine_nor_its_folders(slmx: Slmx, tiny_checkpoint: Path) -> None:
    ran = slmx("doctor", "--bundle", bundles.tiny_bundle(tiny_checkpoint), "--report")
    last = ran.stdout.splitlines()[-1]
    assert platform.node() not in last
    assert str(Path.home()) not in last
    assert str(bundles.tiny_bundle(tiny_checkpoint).parent) not in last


def test_without_report_no_json_is_printed(slmx: Slmx, tiny_checkpoint: Path) -> None:
    ran = slmx("doctor", "--bundle", bundles.tiny_bundle(tiny_checkpoint))
    assert ran.stdout.splitlines()[-1].startswith("pinned")
