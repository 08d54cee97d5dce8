"""Measures a group of cases. Each case has a fresh process. All run at the same time and are called in turn."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from benchmarks.child import worker_environment
from benchmarks.report.leaderboard import setting_of
from benchmarks.report.record import FAILED, MEASURED, SKIPPED, Case, Result
from benchmarks.report.typed_json import from_json
from benchmarks.report.warnings import busy_during
from benchmarks.run.output_check import ExpectedOutput
from benchmarks.run.runners import Job, Loaded, Measured
from runtimes.system.busy import BusyWatch
from runtimes.system.timing import PAUSE
from slm.storage.json_reader import parse_json

WORKER = (sys.executable, "-m", "benchmarks.run.worker")
# Seconds to wait for an answer. torch.compile builds C++ code in its first round.
PATIENCE = 600.0
ENDING = 10.0  # seconds that a process may take to end
LONGEST_ANSWER = 2**26  # bytes
T = TypeVar("T")


class WorkerError(Exception):
    """A worker cannot continue. The message says why."""


class Worker:
    """A process that measures one case, and the pipes to it.

    Raises:
        OSError: The process cannot be started.
    """

    def __init__(self, job: Job) -> None:
        self._timed_out = False
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - it is open as long as the process runs
        # The worker has its own session, so that Ctrl-C reaches only this process, which then ends the workers.
        self._process = subprocess.Popen(
            WORKER,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=worker_environment(OMP_NUM_THREADS=str(job.threads)),
            start_new_session=True,
        )
        self.pid = self._process.pid
        self._job = job

    def load(self) -> Loaded:
        """Sends the job and waits until the model is loaded; WorkerError if it fails."""
        return self._ask(json.dumps(asdict(self._job)), Loaded)

    def round(self) -> Measured:
        """Runs one round; WorkerError if the process crashes, is killed, takes too long or gives an invalid answer."""
        return self._ask("round", Measured)

    def _ask(self, line: str, kind: type[T]) -> T:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        timer = threading.Timer(PATIENCE, self._give_up)
        timer.start()
        try:
            with suppress(BrokenPipeError):
                self._process.stdin.write(f"{line}\n".encode())
                self._process.stdin.flush()
            answer = self._process.stdout.readline(LONGEST_ANSWER)
        finally:
            timer.cancel()
        if not answer.endswith(b"\n") and len(answer) < LONGEST_ANSWER:
            raise WorkerError(self._failure())
        try:
            return from_json(kind, parse_json(answer))
        except ValueError as error:
            raise WorkerError(f"its process gave an answer that cannot be read ({error})") from error

    def _give_up(self) -> None:
        self._timed_out = True
        self._kill()

    def _failure(self) -> str:
        """Returns how the process ended, and the last line that it wrote to stderr."""
        try:
            self._process.wait(ENDING)
        except subprocess.TimeoutExpired:
            return "its process closed its output and did not end"
        code = self._process.returncode
        killed_by = _signal_name(-code) if code < 0 else ""
        if self._timed_out:
            return f"its process gave no answer in {PATIENCE:.0f} s and was ended"
        if killed_by == "SIGKILL":
            return "killed (SIGKILL), probably for memory: close other programs, or measure smaller presets"
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        last = lines[-1] if lines else "nothing on stderr"
        if code == 1:
            return last
        return f"crashed ({killed_by}): {last}" if killed_by else f"ended with exit code {code}: {last}"

    def _kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            if sys.platform == "win32":
                self._process.kill()
            else:
                os.killpg(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Ends the process and its children."""
        self._kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()


def _signal_name(number: int) -> str:
    """Returns the name of a signal, or its number if it has no name, as most real-time signals."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


@dataclass(frozen=True)
class Entry:
    """A case before its measurement.

    Attributes:
        case: The case.
        job: The job of its worker; None if it cannot be measured.
        facts: Fields of its `Result` that are known already.
        note: Why it cannot be measured.
        status: The status of a case that cannot be measured.
    """

    case: Case
    job: Job | None
    facts: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    status: str = SKIPPED


class Group:
    """Cases that are measured together. `results` may be read at any time.

    Args:
        entries: The cases.
        expected: The float model that checks the output.
        rounds: The number of rounds.
        step: Called with the case after each warm-up and each round of it.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        expected: ExpectedOutput,
        rounds: int,
        step: Callable[[Case], None],
    ) -> None:
        self._entries = entries
        self._expected = expected
        self._rounds = rounds
        self._step = step
        self._results = {entry.case: Result(entry.case, **entry.facts) for entry in entries}
        self._workers: dict[Case, Worker] = {}
        self.warnings: list[str] = []

    @property
    def results(self) -> list[Result]:
        """The result of every case, in order. A case that was interrupted before its first round is left out."""
        known = self._results.values()
        return [result for result in known if result.status != MEASURED or result.decode_seconds]

    def run(self) -> None:
        """Loads every case, warms it up, checks its output, then measures in rounds of alternating order."""
        with ExitStack() as stack:
            for entry in self._entries:
                self._load(entry, stack)
            for case in list(self._workers):
                self._turn(case, warm_up=True)
            busy: list[tuple[int, float]] = []
            watch = BusyWatch(lambda: [worker.pid for worker in self._workers.values()])
            for number in range(self._rounds):
                watch.start()
                for case in list(self._workers)[:: 1 if number % 2 else -1]:
                    self._turn(case)
                others = watch.others()
                if others is not None:
                    busy.append((number + 1, others))
            if busy:
                case = self._entries[0].case
                self.warnings.append(busy_during(case.preset, setting_of(case), busy))

    def _load(self, entry: Entry, stack: ExitStack) -> None:
        if entry.job is None:
            self._results[entry.case] = replace(self._results[entry.case], status=entry.status, note=entry.note)
            return
        with self._failing(entry.case):
            try:
                worker = Worker(entry.job)
            except OSError as error:
                raise WorkerError(f"cannot start a process ({error.strerror}); close other programs") from error
            stack.callback(worker.close)
            self._workers[entry.case] = worker
            self._add(entry.case, **asdict(worker.load()))

    def _turn(self, case: Case, warm_up: bool = False) -> None:
        time.sleep(PAUSE)
        with self._failing(case):
            answer = self._workers[case].round()
            done = answer.round
            wrong = self._expected.wrong(case, done.rows) if warm_up else None
            if wrong:
                raise WorkerError(wrong)
            agreement = self._expected.agreement(done.rows)
            result = self._results[case]
            known = agreement if result.agreement is None else min(result.agreement, agreement)
            changed: dict[str, Any] = {"agreement": known, "peak_bytes": answer.peak_bytes}
            if not warm_up:
                changed |= {
                    "first_token_seconds": [*result.first_token_seconds, done.first_token_seconds],
                    "decode_seconds": [*result.decode_seconds, done.decode_seconds],
                    "token_seconds": [*result.token_seconds, *done.token_seconds],
                }
            self._add(case, **changed)
        self._step(case)

    def _add(self, case: Case, **figures: Any) -> None:  # noqa: ANN401 - fields of Result
        """Sets figures of a case; WorkerError if one of them is impossible."""
        try:
            self._results[case] = replace(self._results[case], **figures)
        except ValueError as error:
            raise WorkerError(f"its process gave an impossible figure: {error}") from error

    @contextmanager
    def _failing(self, case: Case) -> Iterator[None]:
        """Turns an error of a worker into a failed result. The other workers continue."""
        try:
            yield
        except WorkerError as error:
            worker = self._workers.pop(case, None)
            if worker is not None:
                worker.close()
            blank: dict[str, Any] = {"first_token_seconds": [], "decode_seconds": [], "token_seconds": []}
            self._results[case] = replace(self._results[case], status=FAILED, note=str(error), **blank)
