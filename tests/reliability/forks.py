"""Runs slmx in children of a process that has imported it once, and kills or disturbs them at a chosen call.

`fail_at.c` counts the calls of a child that change files below one folder. So one run tells how many there are, and
further runs end at each of them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from ctypes import CDLL, c_char_p, c_int, c_long
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("fail_at.c")
LIBRARY = "SLMX_FAIL_AT"
MODES = ("count", "kill", "kill halfway", "fail once", "fail from", "full from")
SECONDS = 300.0


@dataclass(frozen=True)
class Fault:
    """What happens to a child.

    Attributes:
        call: At which of its calls that change the folder, from 0.
        mode: One of MODES. "full from" fails only calls that need space.
        error: The number of the error for those that fail.
    """

    call: int
    mode: str
    error: int = 0


@dataclass(frozen=True)
class Job:
    """A command to run in a child.

    Attributes:
        argv: The command without "slmx", or the name of one of the actions of this module and its arguments.
        folder: The working folder, whose calls are counted.
        fault: What happens to it.
        env: Variables of its environment.
        seconds: After so many seconds the child is killed; None for never.
        move: A folder in the working folder, and the number of the file opened in it at which it is moved away.
    """

    argv: tuple[str, ...]
    folder: Path
    fault: Fault = Fault(0, "count")
    env: Mapping[str, str] = field(default_factory=dict)
    seconds: float | None = None
    move: tuple[str, int] | None = None


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        code: Its exit code, negative for a signal.
        stderr: What it wrote.
        calls: Its calls that change the folder, each with the path; only if nothing else happened to it.
        seconds: How long it ran.
    """

    code: int
    stderr: str
    calls: list[str]
    seconds: float

    @property
    def line(self) -> str:
        """The last line of stderr."""
        return (self.stderr.strip().splitlines() or [""])[-1]


class Forks:
    """The process whose children run commands. It ends with `close`.

    Args:
        home: An empty folder for the library and the output of the children.
        modules: What the process imports first.
    """

    def __init__(self, home: Path, modules: Sequence[str]) -> None:
        self.home = home
        library = home / "fail_at.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl"], check=True)
        env = {
            **os.environ,
            "LD_PRELOAD": str(library),
            LIBRARY: str(library),
            "OMP_NUM_THREADS": "1",
            "TMPDIR": str(home / "tmp"),
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_DATA_HOME": str(home / "data"),
            "MPLCONFIGDIR": str(home / "tmp"),
        }
        (home / "tmp").mkdir()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.reliability.forks", str(home), *modules],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def run(self, job: Job) -> Ended:
        """Runs a command."""
        return self.run_all([job])[0]

    def run_all(self, jobs: Sequence[Job]) -> list[Ended]:
        """Runs commands at the same time."""
        assert self._process.stdin is not None
        rows = [
            {
                "argv": job.argv,
                "folder": str(job.folder),
                "fault": [job.fault.call, MODES.index(job.fault.mode), job.fault.error],
                "env": dict(job.env),
                "seconds": job.seconds,
                "move": job.move,
            }
            for job in jobs
        ]
        self._process.stdin.write(json.dumps(rows) + "\n")
        self._process.stdin.flush()
        return [Ended(*values) for values in self._answer()]

    def _answer(self) -> Any:  # noqa: ANN401  # JSON
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@contextmanager
def forks(home: Path, modules: Sequence[str]) -> Iterator[Forks]:
    """Yields the process; arguments as in `Forks`."""
    made = Forks(home, modules)
    try:
        yield made
    finally:
        made.close()


def _serve(home: Path, modules: Sequence[str]) -> None:
    """Reads jobs from stdin, a line of JSON for those that run together, and answers each line with one."""
    tell = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for name in modules:
        import_module(name)
    arm = CDLL(os.environ[LIBRARY]).fail_at_arm
    arm.argtypes = [c_char_p, c_long, c_int, c_int, c_int]
    del os.environ["LD_PRELOAD"]  # programs that a command starts are not disturbed
    print(json.dumps(None), file=tell, flush=True)
    for line in sys.stdin:
        started = [(_start(home, number, row, arm), row) for number, row in enumerate(json.loads(line))]
        answers = [_wait(home, number, child, row) for number, (child, row) in enumerate(started)]
        print(json.dumps(answers), file=tell, flush=True)


def _start(home: Path, number: int, row: Mapping[str, Any], arm: Callable[..., None]) -> int:
    child = os.fork()
    if child:
        return child
    os.setsid()
    opened = {
        name: os.open(home / f"{name}-{number}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for name in ("err", "log")
    }
    nothing = os.open(os.devnull, os.O_RDWR)
    for target, source in ((0, nothing), (1, nothing), (2, opened["err"])):
        os.dup2(source, target)
    os.chdir(row["folder"])
    os.environ.update(row["env"])
    if row["move"] is not None:
        _move_later(*row["move"])
    call, mode, error = row["fault"]
    arm(os.fsencode(row["folder"]), call, mode, error, opened["log"] if mode == 0 else -1)
    code = 70
    try:
        code = _act(row["argv"])
    except BaseException:
        sys.excepthook(*sys.exc_info())
    with suppress(OSError):
        sys.stderr.flush()
    os._exit(code)


def _act(argv: list[str]) -> int:
    """Runs a command, or an action of this module in the place of one."""
    from slm import cli

    sys.argv = ["slmx", *argv]
    if argv[0] in ACTIONS:
        vars(cli)["app"] = lambda **_: ACTIONS[argv[0]](*argv[1:])
    try:
        cli.main()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return 0


def _write_report(out: str, *runners: str) -> None:
    from benchmarks.report.write import write_reports
    from tests.report_samples import report, result

    write_reports(report([result(name) for name in runners]), Path(out))


def _pin(bundle: str, threads: str) -> None:
    from runtimes.bundle.pin import Pin
    from runtimes.bundle.store import Bundle
    from runtimes.checks.pins import write_pin

    write_pin(Bundle.open(Path(bundle)), Pin("int8", int(threads), "a processor"))


ACTIONS: dict[str, Callable[..., None]] = {"write-report": _write_report, "pin": _pin}


def _move_later(name: str, opened: int) -> None:
    left = [opened]
    folder = os.path.abspath(name)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            path = os.path.abspath(os.fsdecode(arguments[0]))
            if path.startswith(folder + os.sep):
                left[0] -= 1
                if left[0] == -1:
                    os.rename(folder, folder + " moved")

    sys.addaudithook(hook)


def _wait(home: Path, number: int, child: int, row: Mapping[str, Any]) -> tuple[int, str, list[str], float]:
    began, limit = time.monotonic(), SECONDS if row["seconds"] is None else row["seconds"]
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > began + limit:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            limit = SECONDS * 2
        time.sleep(0.001)
    err, log = ((home / f"{name}-{number}").read_text("utf-8", "replace") for name in ("err", "log"))
    return os.waitstatus_to_exitcode(status), err, log.splitlines(), time.monotonic() - began


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), sys.argv[2:])
