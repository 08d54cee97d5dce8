"""One group of cases: a fresh process for each, all alive at once, called in turn, round after round."""

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
from typing import Any

from benchmarks.report.leaderboard import setting_of
from benchmarks.report.record import FAILED, MEASURED, SKIPPED, Case, Result
from benchmarks.run.environment import BusyWatch
from benchmarks.run.output_check import Reference
from benchmarks.run.runners import Job
from benchmarks.run.targets import worker_environment
from runtimes.system.timing import PAUSE

WORKER = (sys.executable, "-m", "benchmarks.run.worker")
# Seconds for an answer; torch.compile builds C++ in its first round.
PATIENCE = 600.0


class WorkerError(Exception):
    """A worker that can answer no more; its message says why."""


class Worker:
    """A process that measures one case, and the pipes to it."""

    def __init__(self, job: Job) -> None:
        self._timed_out = False
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
        # In a session of its own, so that Ctrl-C reaches this process alone, which then ends the workers.
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

    def load(self) -> dict[str, Any]:
        """Hand over the job; what it says once the model is loaded. WorkerError if it cannot be."""
        return self._ask(json.dumps(asdict(self._job)))

    def round(self) -> dict[str, Any]:
        """One round's answer; WorkerError when it crashes, is killed or takes too long."""
        return self._ask("round")

    def _ask(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        timer = threading.Timer(PATIENCE, self._give_up)
        timer.start()
        try:
            with suppress(BrokenPipeError):
                self._process.stdin.write(f"{line}\n".encode())
                self._process.stdin.flush()
            answer = self._process.stdout.readline()
        finally:
            timer.cancel()
        if not answer.endswith(b"\n"):
            self._process.wait()
            raise WorkerError(self._last_words())
        found: dict[str, Any] = json.loads(answer)
        return found

    def _give_up(self) -> None:
        self._timed_out = True
        self._kill()

    def _last_words(self) -> str:
        code = self._process.returncode
        if self._timed_out:
            return f"gave no answer in {PATIENCE:.0f} s and was ended"
        if code == -signal.SIGKILL:
            return "killed (SIGKILL), probably for memory: close other programs, or measure smaller presets"
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        last = lines[-1] if lines else "nothing on stderr"
        if code == 1:
            return last
        return f"crashed ({signal.Signals(-code).name if code < 0 else f'exit code {code}'}): {last}"

    def _kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """End the process, and whatever it started."""
        self._kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()


@dataclass(frozen=True)
class Entry:
    """A case ready to be measured: its job, what is known beforehand, or why it cannot be (`note`, `status`)."""

    case: Case
    job: Job | None
    facts: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    status: str = SKIPPED


class Group:
    """Cases that are compared with each other; `results` holds what is known so far, at any time."""

    def __init__(
        self,
        entries: Sequence[Entry],
        reference: Reference,
        rounds: int,
        step: Callable[[Case], None],
    ) -> None:
        self._entries = entries
        self._reference = reference
        self._rounds = rounds
        self._step = step
        self._results = {entry.case: Result(entry.case, **entry.facts) for entry in entries}
        self._workers: dict[Case, Worker] = {}
        self.warnings: list[str] = []

    @property
    def results(self) -> list[Result]:
        """What every case has given, in order; one that was interrupted before its first round is left out."""
        known = self._results.values()
        return [result for result in known if result.status != MEASURED or result.decode_seconds]

    def run(self) -> None:
        """Load every case, let each warm up and answer rightly, then measure in rounds of alternating order."""
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
            self.warnings += _busy_lines(self._entries[0].case, busy)

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
            self._results[entry.case] = replace(self._results[entry.case], **worker.load())

    def _turn(self, case: Case, warm_up: bool = False) -> None:
        time.sleep(PAUSE)
        with self._failing(case):
            answer = self._workers[case].round()
            agreement = self._reference.agreement(answer["rows"])
            if warm_up:
                wrong = self._reference.wrong(case, answer["rows"])
                if wrong:
                    raise WorkerError(wrong)
            result = self._results[case]
            known = agreement if result.agreement is None else min(result.agreement, agreement)
            changed: dict[str, Any] = {"agreement": known, "peak_bytes": answer["peak_bytes"]}
            if not warm_up:
                changed |= {
                    "first_token_seconds": [*result.first_token_seconds, answer["first_token_seconds"]],
                    "decode_seconds": [*result.decode_seconds, answer["decode_seconds"]],
                    "token_seconds": [*result.token_seconds, *answer["token_seconds"]],
                }
            self._results[case] = replace(result, **changed)
        self._step(case)

    @contextmanager
    def _failing(self, case: Case) -> Iterator[None]:
        """Turn a worker that fails into a failed result; the others go on."""
        try:
            yield
        except WorkerError as error:
            worker = self._workers.pop(case, None)
            if worker is not None:
                worker.close()
            blank: dict[str, Any] = {"first_token_seconds": [], "decode_seconds": [], "token_seconds": []}
            self._results[case] = replace(self._results[case], status=FAILED, note=str(error), **blank)


def _busy_lines(case: Case, busy: Sequence[tuple[int, float]]) -> list[str]:
    """The warning that others disturbed rounds of a case's group, if they did."""
    if not busy:
        return []
    rounds = ", ".join(str(number) for number, _ in busy)
    most = max(share for _, share in busy)
    told = f"{case.preset}, {setting_of(case)}: other processes took up to {most:.0%} of the cores"
    return [f"{told} in round{'s' * (len(busy) > 1)} {rounds}"]
