"""The folder of a run: no file of a user is replaced, no measurement is lost, and only one run writes at a time."""

from __future__ import annotations

import errno
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.report.reader import read_report
from benchmarks.report.write import write_reports
from benchmarks.run.bench import Bench
from benchmarks.run.progress import Meter
from slm.console.errors import SlmxError
from slm.storage import disk
from slm.storage.disk import write_advice
from tests.benchmarks.run.brief import ONE_RUNNER, brief
from tests.bundles import Slmx
from tests.report_samples import report, result

pytestmark = pytest.mark.slow

LOCKED = """
import sys, time
from pathlib import Path
from slm.storage.locks import lock_folder
with lock_folder(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_report_that_cannot_be_written_loses_no_measurement(
    slmx: Slmx, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out é 50%#"
    options = (bundle, "--quick", *ONE_RUNNER, "--out", out)

    def full(*_: object, **__: object) -> None:
        other = subprocess.run([sys.executable, "-c", LOCKED, str(out)], input=b"", capture_output=True, timeout=60)
        assert b"is writing it" in other.stderr  # the folder is locked until the report is written
        raise OSError(errno.ENOSPC, "No space left on device", str(out))

    with monkeypatch.context() as patch:
        patch.setattr("benchmarks.report.write.write_reports", full)
        ran = slmx("bench", *options)
    assert (ran.code, ran.stderr.splitlines()[-1]) == (1, f"slmx: {out}: No space left on device; {write_advice(28)}")
    monkeypatch.setattr(Bench, "_step", lambda self, target, case: pytest.fail("measured again"))
    again = slmx("bench", *options)
    assert again.code == 0, again.stderr
    assert "continues after 3 finished parts" in again.stderr
    assert len(read_report(out / "report" / "report.json").results) == 2


def test_a_report_that_may_not_be_replaced_is_told_before_anything_is_measured(
    slmx: Slmx, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out é"
    write_reports(report([result("int8")]), out / "report")
    real = disk.check_creatable

    def closed(path: Path) -> None:
        if path.parent == out / "report":
            raise disk.WriteError(errno.EACCES, "Permission denied", str(path))
        real(path)

    monkeypatch.setattr(disk, "check_creatable", closed)
    monkeypatch.setattr(Bench, "run", lambda self: pytest.fail("it measured"))
    line = slmx.refuses("bench", bundle, "--quick", *ONE_RUNNER, "--out", out)
    where = out / "report" / "files.json"
    assert line == f"{where}: cannot write (Permission denied); check its permissions, or use another folder"


def test_a_users_file_in_the_report_is_refused_before_anything_is_measured(
    slmx: Slmx, bundle: Path, tmp_path: Path
) -> None:
    thesis = tmp_path / "out é 50%#" / "report" / "thesis.txt"
    thesis.parent.mkdir(parents=True)
    thesis.write_text("mine")
    line = slmx.refuses("bench", bundle, "--quick", *ONE_RUNNER, "--out", thesis.parent.parent)
    assert line.startswith(f"{thesis.parent}: not empty: it holds other files, such as thesis.txt, and")
    assert [path.name for path in thesis.parent.parent.rglob("*")] == ["report", "thesis.txt"]


def test_a_folder_of_something_else_is_not_worked_in(slmx: Slmx, bundle: Path, tmp_path: Path) -> None:
    run = tmp_path / "run é 50%#"
    run.mkdir()
    (run / "run.json").write_text("{}")
    line = slmx.refuses("bench", bundle, "--quick", *ONE_RUNNER, "--out", run)
    assert line == f"{run}: not empty: run.json is not of slmx bench; choose another --out"
    line = slmx.refuses("bench", bundle, "--quick", *ONE_RUNNER, "--out", run / "run.json")
    assert line == f"{run / 'run.json'}: a file stands where the folder should go; choose another --out"
    assert [path.name for path in run.iterdir()] == ["run.json"]


def test_two_runs_do_not_write_to_one_folder(slmx: Slmx, bundle: Path, tmp_path: Path, meter: Meter) -> None:
    out = tmp_path / "out é 50%#"
    command = [sys.executable, "-c", LOCKED, str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        line = slmx.refuses("bench", bundle, "--quick", *ONE_RUNNER, "--out", out)
        assert line.startswith(f"{out}: process {other.pid} is writing it")
        with pytest.raises(SlmxError, match="is writing it"):
            Bench(brief(out, bundle, "fp32"), meter).run()
        assert not out.exists()
        other.communicate("")
    Bench(replace(brief(out, bundle, "fp32"), quick=True), meter).run()
