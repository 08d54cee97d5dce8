"""A signal ends a command as an exception does. An expected failure is one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from slm import cli

# A command that writes a folder and waits in the middle of it.
WAITING = """
import signal, sys, time
from pathlib import Path
from slm import cli
from slm.storage.atomic import atomic_folder

def wait(out: Path) -> None:
    with atomic_folder(out) as folder:
        (folder / "a").write_text("1")
        print("waits", flush=True)
        time.sleep(60)

cli.COMMANDS["wait"] = ("__main__", "wait")
ignored = sys.argv.pop(1) == "ignore"  # nohup, under which the tests may run, ignores it too
signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
cli.main()
"""


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "é 50% #1" / "out"


@pytest.fixture
def command(out: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """The command in the middle of its work."""
    out.parent.mkdir()
    started = [sys.executable, "-c", WAITING, getattr(request, "param", "heed"), "wait", str(out)]
    with subprocess.Popen(started, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
        assert os.listdir(out.parent) == [".slmx-work-out"]
        yield process
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_leaves_nothing_half_written(
    command: subprocess.Popen[str], out: Path, number: signal.Signals
) -> None:
    command.send_signal(number)
    _, errors = command.communicate(timeout=30)
    assert os.listdir(out.parent) == []
    assert "Traceback" not in errors
    assert ("slmx: stopped by SIGTERM" in errors.splitlines()) == (number == signal.SIGTERM)
    if number != signal.SIGINT:
        assert command.returncode == 128 + number


@pytest.mark.parametrize("command", ["ignore"], indirect=True)
def test_a_signal_that_nohup_ignores_stays_ignored(command: subprocess.Popen[str], out: Path) -> None:
    command.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        command.wait(0.5)
    command.terminate()
    assert command.wait(30) == 128 + signal.SIGTERM


def test_handlers_are_as_before_when_the_command_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    monkeypatch.setattr(sys, "argv", ["slmx", "presets"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)] == before


# A command that fails as on a full disk, in a place that nobody knows.
FULL = """
from slm import cli

def fail() -> None:
    raise OSError(28, "No space left on device")

def tell() -> None:
    print("told", flush=True)

cli.COMMANDS |= {"fail": ("__main__", "fail"), "tell": ("__main__", "tell")}
cli.main()
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("fail", "slmx: No space left on device; free space there, or use another folder"),
        ("tell", "slmx: standard output: No space left on device; free space there, or use another folder"),
    ],
)
def test_only_standard_output_is_called_so(command: str, line: str) -> None:
    target = "/dev/full" if command == "tell" else os.devnull
    with open(target, "w") as output:
        started = [sys.executable, "-c", FULL, command]
        ran = subprocess.run(started, stdout=output, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    assert ran.stderr.splitlines()[0] == line
    assert ran.returncode in (1, 120)  # 120 if Python itself flushes it again at the end


@pytest.mark.parametrize(
    ("words", "with_force"),
    [
        (["pack", "nano"], ["pack", "nano", "--force"]),
        (["unpack", "--", "-b.slmx"], ["unpack", "--force", "--", "-b.slmx"]),
    ],
)
def test_the_command_that_replaces_is_one_that_works(words: list[str], with_force: list[str]) -> None:
    assert cli._with_force(words) == with_force
