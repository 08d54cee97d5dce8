"""What the emulated Raspberry Pis do without any download: folders, refusals, comparison of stories."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from benchmarks.pi import checks, debian
from benchmarks.pi.__main__ import table
from benchmarks.pi.checks import FAILED, PASSED, Expected, Result, check
from benchmarks.pi.machine import Machine, answer, build_wheel, cache_folder, once
from slm.console.errors import SlmxError

ECHO = "import json; print(json.dumps({'ids': [1, 2, 3]}))"


def test_the_cache_is_where_the_system_keeps_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "slmx-pi"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "slmx-pi"


def test_a_folder_is_made_once_and_an_attempt_that_fails_leaves_none(tmp_path: Path) -> None:
    target = tmp_path / "made"

    def fail(work: Path) -> None:
        (work / "half").touch()
        raise SlmxError("no network")

    with pytest.raises(SlmxError, match="no network"):
        once(target, fail)
    assert not target.exists()
    once(target, lambda work: (work / "whole").touch())
    once(target, fail)
    assert [path.name for path in target.iterdir()] == ["whole"]


def test_two_processes_do_not_make_one_folder(tmp_path: Path) -> None:
    target, held = tmp_path / "made", tmp_path / "made.work" / "half"
    code = "import sys; from pathlib import Path; from benchmarks.pi.machine import once\n"
    code += (
        "once(Path(sys.argv[1]), lambda work: ((work / 'half').touch(), print('half', flush=True), sys.stdin.read()))"
    )
    command = [sys.executable, "-c", code, str(target)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "half\n"
        with pytest.raises(SlmxError, match=f"process {other.pid} is writing it"):
            once(target, lambda work: pytest.fail("it makes the folder too"))
        assert held.exists()
        other.communicate("")
    assert [path.name for path in target.iterdir()] == ["half"]


def test_without_the_tools_of_debian_one_line_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlmxError) as caught:
        debian.find_mirror()
    assert str(caught.value).startswith("no apt-get: this is made of Debian's packages")


@pytest.mark.parametrize(
    ("listing", "found"),
    [
        ("Debian\tbookworm-security\thttp://a/\nDebian\tbookworm\thttp://b/debian/\n", "http://b/debian/"),
        ("\t\tfile:/packages/\nDebian Backports\tsid\thttp://c/\nDebian\tsid\thttp://d/\n", "http://d/"),
        ("Ubuntu\tnoble\thttp://e/ubuntu/\n", None),
        ("", None),
    ],
)
def test_the_mirror_is_the_one_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, listing: str, found: str | None
) -> None:
    monkeypatch.setattr("shutil.which", lambda tool: f"/usr/bin/{tool}")
    monkeypatch.setattr(debian, "output_of", lambda command, doing: listing)
    if found is None:
        with pytest.raises(SlmxError, match="apt knows no mirror of Debian"):
            debian.find_mirror()
    else:
        assert debian.find_mirror() == found


def test_a_command_that_does_not_end_is_stopped() -> None:
    with pytest.raises(SlmxError, match="no end after 0 s"):
        answer([sys.executable, "-c", "import time; time.sleep(60)"], {}, 0.2)


@pytest.mark.heavy
@pytest.mark.slow
def test_the_wheel_is_that_of_the_tree_and_leaves_nothing_in_it(tmp_path: Path) -> None:
    before = subprocess.run(["git", "status", "--porcelain", "--ignored"], capture_output=True, check=True).stdout
    wheel = build_wheel(tmp_path)
    names = zipfile.ZipFile(wheel).namelist()
    assert {"slm/cli.py", "runtimes/bundles/nano/onnx/model_int8.onnx", "benchmarks/pi/machine.py"} <= set(names)
    after = subprocess.run(["git", "status", "--porcelain", "--ignored"], capture_output=True, check=True).stdout
    assert before == after


class Program(Machine):
    """This machine's Python instead of an emulated slmx. Every command prints the ids 1, 2, 3."""

    def slmx(self, cpu: str, *arguments: str) -> list[str]:
        return [sys.executable, "-c", ECHO]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(checks, "ask_server", lambda *_: "an answer")
    return Program(tmp_path, tmp_path, tmp_path)


def outcomes(machine: Machine, ids: dict[str, list[int]]) -> dict[str, Result]:
    return {result.check: result for result in check(machine, "cortex-a53", Expected(Path("b"), ids, [1, 2, 3]))}


def test_float_variants_must_agree_and_int8_is_only_reported(program: Machine) -> None:
    found = outcomes(program, {"fp32": [1, 2, 4], "int8": [1, 9, 3], "fp16": [1, 2, 3]})
    assert found["generate, fp32"].outcome == FAILED
    assert found["generate, fp32"].note == "the tokens differ from token 3 on"
    assert found["generate, int8"].outcome == PASSED
    assert "differ from those of this machine from token 2 on" in found["generate, int8"].note
    assert found["generate, fp16"].outcome == PASSED
    assert found["generate, shipped nano"].outcome == PASSED


def test_the_other_checks_fail_on_a_wrong_answer(program: Machine) -> None:
    found = outcomes(program, {"fp32": [1, 2, 3]})
    assert found["generate -n 4, fp32"].note == "1 stories, which are not 4 times the greedy one"
    assert found["doctor --report"].outcome == FAILED
    assert found["pack, generate"].outcome == FAILED  # no file was made
    assert found["serve, one request"].note == "an answer"


def test_the_table_has_a_row_for_each_result() -> None:
    rows = table([Result("cortex-a53", "doctor", FAILED, 2.6, "no variants")]).splitlines()
    assert rows[0].startswith("| processor | check |")
    assert rows[2:] == ["| cortex-a53 | doctor | FAILED | 3 | no variants |"]


def test_a_processor_that_is_not_emulated_is_refused() -> None:
    ran = subprocess.run([sys.executable, "-m", "benchmarks.pi", "--cpu", "z80"], capture_output=True, text=True)
    assert ran.returncode == 2
    assert ran.stderr == "benchmarks.pi: unknown processor 'z80': choose one of cortex-a53, cortex-a72, cortex-a76\n"
