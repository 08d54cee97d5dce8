"""Limits of the machine, known problems, and the measurement of `slmx doctor`."""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from runtimes import load
from runtimes.bundle.location import SHIPPED_BUNDLES
from runtimes.bundle.pin import Pin, find_pin, pins_path, read_pins
from runtimes.bundle.store import Bundle
from runtimes.checks.doctor import Findings, Way, choose, fatal_problems, look, measure_ways, slowdowns, thread_counts
from runtimes.checks.pins import write_pin
from runtimes.system.machine import (
    cpu_features,
    cpu_fields,
    cpu_name,
    cpu_quota,
    temperature,
    this_cpu,
    top_megahertz,
    usable_cores,
)
from runtimes.system.timing import Samples
from slm.console.counted import counted
from tests import bundles
from tests.bundles import Slmx
from tests.conftest import run_slmx

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
    tie = r"; equally quick within the noise: .*; the first is kept, because .*"
    assert re.fullmatch(rf"(int8|fp32), \d threads?, of those that lose at most 1%({tie})?", told["quickest"])
    assert told["default"].startswith("int8, 1 thread")
    assert told["pinned"].startswith("nothing for this bundle")


def seconds(median: float, spread: float = 0.0) -> Samples:
    return Samples([median * (1 + share * spread) for share in (-1.5, -1, 0, 1, 1.5)])


INT8, TWO, Q8, INT4 = Way("int8", 1), Way("int8", 2), Way("q8", 1), Way("int4", 1)


@pytest.mark.parametrize(
    ("measured", "kept", "equal"),
    [
        ({INT8: seconds(1.0), TWO: seconds(1.5)}, INT8, []),
        ({TWO: seconds(1.0), INT8: seconds(1.5)}, TWO, []),
        ({TWO: seconds(1.0), INT8: seconds(1.04)}, INT8, [TWO]),
        ({TWO: seconds(1.0, 0.2), INT8: seconds(1.3, 0.2)}, INT8, [TWO]),
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


def test_a_pin_on_a_busy_machine_is_warned_of_and_can_be_taken_back(
    slmx: Slmx, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr("runtimes.checks.doctor.measure_ways", lambda bundle: {INT8: seconds(1.0), TWO: seconds(1.01)})
    monkeypatch.setattr("runtimes.system.busy.BusyWatch.others", lambda self: 0.4)
    bundle = bundles.tiny_bundle(tiny_checkpoint)
    lines = slmx("doctor", "--pin", "--bundle", bundle).stdout.splitlines()
    assert lines[-4] == (
        "quickest     int8, 1 thread, of those that lose at most 1%; equally quick within the noise: int8, 2 threads; "
        "the first is kept, because it is the default"
    )
    assert lines[-2].startswith("warning      other processes used 40% of the cores")
    assert lines[-2].endswith("run slmx doctor --pin again when they have ended, or take the pin back with --unpin")
    assert lines[-1] == f"pinned       int8, 1 thread, in {pins_path()}"
    write_pin(Bundle.open(bundle), Pin("fp32", 2, this_cpu()))
    assert (
        slmx("doctor", "--bundle", bundle).stdout.splitlines()[-1] == f"pinned       fp32, 2 threads, in {pins_path()}"
    )
    other = Pin("fp32", 2, this_cpu())
    write_pin(Bundle.open(SHIPPED_BUNDLES / "micro"), other)
    gone = slmx("doctor", "--unpin", "--bundle", bundle).stdout
    assert gone == f"unpinned     fp32, 2 threads, no longer pinned for {bundle}, in {pins_path()}\n"
    assert load(bundle).variant == "int8"
    assert find_pin(Bundle.open(SHIPPED_BUNDLES / "micro"), this_cpu()) is None, "micro has no fp32"
    assert pins_path().read_text().count('"fp32"') == 1, "the pin of another bundle stays"
    assert "nothing was pinned" in slmx("doctor", "--unpin", "--bundle", bundle).stdout
    assert "exclude each other" in slmx.refuses("doctor", "--pin", "--unpin", code=2)


def test_a_pinned_way_is_what_every_command_takes(
    slmx: Slmx, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr("runtimes.checks.doctor.usable_cores", lambda: 2)
    bundle, other = bundles.tiny_bundle(tiny_checkpoint), load()
    ran = slmx("doctor", "--bundle", bundle, "--pin")
    (way,) = [line.split(maxsplit=1)[1] for line in ran.stdout.splitlines() if line.startswith("pinned")]
    written = load(bundle)
    assert way == f"{written.variant}, {counted(written.threads, 'thread')}, in {pins_path()}"
    assert pins_path() == tmp_path / "config" / "slmx" / "variants.json"
    write_pin(Bundle.open(bundle), Pin("fp32", 2, this_cpu()))
    pinned = load(bundle)
    assert (pinned.variant, pinned.threads) == ("fp32", 2)
    assert (
        "(fp32, seed 1, 2 threads)" in slmx("generate", "--bundle", bundle, "--seed", "1", "--max-tokens", "3").stderr
    )
    assert load(bundle, "int8").threads == load(bundle, threads=1).threads == 1
    assert load(bundle, threads=1).variant == "int8", "a flag leaves the pin out"
    assert (load().variant, load().threads) == (other.variant, other.threads), "other bundles are as before"
    write_pin(Bundle.open(bundle), Pin("fp32", 2, "another processor"))
    assert load(bundle).variant == "int8"
    write_pin(Bundle.open(bundle), Pin("gone", 2, this_cpu()))
    assert load(bundle).variant == "int8"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format_version": 0, "bundles": {}}', "[" * 10_000])
def test_a_damaged_file_of_pins_is_a_warning_and_doctor_mends_it(
    slmx: Slmx, tmp_path: Path, content: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr("runtimes.checks.doctor.measure_ways", lambda bundle: {INT8: seconds(1.0)})
    pins_path().parent.mkdir()
    pins_path().write_text(content)
    ran = slmx("generate", "Once", "--max-tokens", "3", "--seed", "1")
    assert (ran.code, ran.stderr.count("(int8, seed 1, ")) == (0, 1)
    (line,) = caplog.messages
    assert line.startswith(f"{pins_path()}: damaged (")
    assert line.endswith(
        "slmx doctor --pin or --unpin writes it anew, without its other choices; going on without a choice"
    )
    assert slmx("doctor", "--pin").code == 0
    assert len(read_pins(pins_path())) == 1
    pins_path().write_text(content)
    assert slmx("doctor", "--unpin").code == 0
    assert read_pins(pins_path()) == {}
    assert caplog.messages[-1] == f"{pins_path()}: was damaged; it is written anew, without its other choices"


def test_the_warning_of_a_damaged_file_of_pins_is_one_line_on_stderr(tmp_path: Path) -> None:
    (tmp_path / "slmx").mkdir()
    (tmp_path / "slmx" / "variants.json").write_text("{")
    arguments = ("generate", "Once", "--max-tokens", "3", "--seed", "1")
    ran = run_slmx(*arguments, cwd=tmp_path, env={"XDG_CONFIG_HOME": str(tmp_path)})
    assert (ran.returncode, ran.stdout) == (0, run_slmx(*arguments, cwd=tmp_path).stdout)
    warning, _figures = ran.stderr.splitlines()
    assert warning.startswith(f"{tmp_path}/slmx/variants.json: damaged (")


def test_one_damaged_pin_leaves_the_others(
    slmx: Slmx, tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    nano, tiny = Bundle.open(SHIPPED_BUNDLES / "nano"), Bundle.open(bundles.tiny_bundle(tiny_checkpoint))
    kept, odd = Pin("int8", 1, this_cpu()), Pin("int8", 999, this_cpu())
    write_pin(nano, kept)
    write_pin(tiny, odd)
    assert find_pin(nano, this_cpu()) == kept
    assert caplog.messages == []
    assert find_pin(tiny, this_cpu()) is None
    assert caplog.messages[-1] == (
        f"{pins_path()}: the choice for this bundle is damaged; slmx doctor --pin or --unpin mends it; "
        "going on without a choice"
    )
    assert "nothing was pinned" in slmx("doctor", "--unpin", "--bundle", tiny.path).stdout
    assert caplog.messages[-1] == f"{pins_path()}: 1 choice was damaged and removed"
    assert read_pins(pins_path()) == {nano.manifest_sha256: kept}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "a folder, and slmx keeps the choices in a file there; remove that folder"),
        ('{"format_version": 2}', "written by a newer slmx (format 2); update slmx, or remove that file"),
    ],
)
def test_a_file_of_pins_that_cannot_be_replaced_is_one_line_before_the_measurement(
    slmx: Slmx, tmp_path: Path, content: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    pins_path().parent.mkdir()
    pins_path().mkdir() if content is None else pins_path().write_text(content)
    for option in ("--pin", "--unpin"):
        assert slmx.refuses_unchanged("doctor", option) == f"{pins_path()}: {said}"
    assert load().variant == "int8"


def test_a_folder_of_settings_that_cannot_be_written_is_one_line(
    slmx: Slmx, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    advice = "set XDG_CONFIG_HOME to a folder that slmx can write to"
    assert slmx.refuses("doctor", "--pin") == f"{pins_path()}: cannot write (Not a directory); {advice}"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    monkeypatch.setattr("runtimes.checks.pins.check_creatable", mock.Mock(side_effect=denied))
    assert slmx.refuses("doctor", "--pin") == f"{pins_path()}: cannot write (Permission denied); {advice}"


def test_control_characters_of_a_path_are_escaped(
    slmx: Slmx, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "a\x1bb\n"))
    assert slmx("doctor", "--unpin").stdout.endswith(r"a\x1bb\n/slmx/variants.json" + "\n")
    pins_path().mkdir(parents=True)
    load()
    assert r"a\x1bb\n/slmx/variants.json: a folder" in caplog.messages[-1]


@pytest.mark.parametrize("folder", ["/" + "a" * 300, None])
def test_a_user_without_a_folder_of_settings_has_stories_and_no_pin(
    slmx: Slmx, tiny_checkpoint: Path, folder: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first folder cannot be looked at. Without any, there is no absolute home folder either."""
    monkeypatch.setenv("HOME", "relative")
    monkeypatch.delenv("XDG_CONFIG_HOME") if folder is None else monkeypatch.setenv("XDG_CONFIG_HOME", folder)
    bundle = bundles.tiny_bundle(tiny_checkpoint)
    assert load(bundle).variant == "int8"
    if folder is None:
        line = slmx.refuses("doctor", "--pin", "--bundle", bundle)
        assert line == "no home folder for the choices of slmx doctor --pin: set XDG_CONFIG_HOME to a folder"
    assert not Path("relative").exists()


def test_of_two_pins_at_once_none_is_lost(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    def read_slowly(path: Path) -> dict[str, Pin | None]:
        found = read_pins(path)
        time.sleep(0.2)
        return found

    monkeypatch.setattr("runtimes.checks.pins.read_pins", read_slowly)
    pinned = [Bundle.open(folder) for folder in (bundles.tiny_bundle(tiny_checkpoint), SHIPPED_BUNDLES / "nano")]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda bundle: write_pin(bundle, Pin("int8", 1, this_cpu())), pinned))
    assert set(read_pins(pins_path())) == {bundle.manifest_sha256 for bundle in pinned}


@pytest.mark.parametrize(
    ("exact", "word"), [(True, "signed in memory"), (False, "unsigned: products of signed ones are not exact")]
)
def test_the_form_of_the_weights_in_memory_is_told(
    slmx: Slmx, tiny_checkpoint: Path, exact: bool, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtimes.engine.exact_products.signed_is_exact", lambda: exact)
    ran = slmx("doctor", "--bundle", bundles.tiny_bundle(tiny_checkpoint))
    assert f"weights      of int8 are {word}" in ran.stdout


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
