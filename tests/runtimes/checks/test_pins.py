"""The choice that `slmx doctor --pin` keeps: what takes it, and files of choices that are damaged or forbidden."""

from __future__ import annotations

import errno
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import pytest

from runtimes import load
from runtimes.bundle.location import SHIPPED_BUNDLES
from runtimes.bundle.pin import Pin, find_pin, pins_path, read_pins
from runtimes.bundle.store import Bundle
from runtimes.checks.pins import write_pin
from runtimes.system.machine import (
    this_cpu,
)
from runtimes.system.timing import Samples
from slm.console.counted import counted
from tests import bundles
from tests.bundles import Slmx
from tests.conftest import run_slmx
from tests.runtimes.checks.ways import INT8, TWO, seconds

pytestmark = pytest.mark.slow


def test_a_pin_on_a_busy_machine_is_warned_of_and_can_be_taken_back(
    slmx: Slmx, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr("runtimes.checks.doctor.measure_ways", lambda bundle: {INT8: seconds(1.0), TWO: seconds(1.01)})
    monkeypatch.setattr("runtimes.system.busy.BusyWatch.others", lambda self: 0.4)
    bundle = bundles.tiny_bundle(tiny_checkpoint)
    lines = slmx("doctor", "--pin", "--bundle", bundle).stdout.splitlines()
    assert lines[-5:-3] == [
        "quickest     int8, 1 thread",
        "as quick     int8, 2 threads (within the noise; int8, 1 thread is taken: the default)",
    ]
    noisy = Samples([1.0, 2.0, 3.0])
    monkeypatch.setattr("runtimes.checks.doctor.measure_ways", lambda bundle: {INT8: noisy, TWO: noisy})
    told = slmx("doctor", "--bundle", bundle).stdout
    assert "because the speeds differ too much from round to round (spread 50%)" in " ".join(told.split())
    assert "as quick" not in told
    monkeypatch.setattr("runtimes.checks.doctor.measure_ways", lambda bundle: {TWO: noisy})
    refused = slmx("doctor", "--pin", "--bundle", bundle)
    assert (refused.code, refused.stdout.splitlines()[-1]) == (1, lines[-1]), "the earlier choice stays"
    assert refused.stderr.splitlines()[-1] == (
        "slmx: --pin: nothing was pinned now, because the speeds differ too much from round to round (spread 50%); "
        "run it again when nothing else runs"
    )
    assert lines[-2].startswith("warning      other processes used 40% of the cores")
    assert lines[-2].endswith(
        f"; when they have ended, run slmx doctor --bundle {bundle} --pin again, or take it back with --unpin"
    )
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
    monkeypatch.setattr("runtimes.checks.doctor.measure_ways", lambda bundle: {TWO: seconds(1.0), INT8: seconds(2.0)})
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
