"""No file, however damaged or hostile, does anything but work or give one line of SlmxError.

`python -m tests.reliability.hostile READER FILE` reads one file as the check does, and shows what happens.
"""

from __future__ import annotations

import ctypes
import functools
import json
import math
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

from slm.console.notice import Log
from slm.storage.disk import write_file
from tests.reliability.fuzz_worker import INPUT, Fault, work
from tests.reliability.outcome import Check, Outcome
from tests.reliability.reader import fault_of
from tests.reliability.readers import READERS

READER_SECONDS, QUICK_SECONDS = 600.0, 0.6  # of processor time
MOST_INPUTS = 1_000_000
# The most exposed kinds have this many too, in parts and without a limit of time.
TEN_MILLION, PART, MOST_EXPOSED = 10_000_000, 250_000, ("archive", "manifest", "checkpoint-weights")
STARTS = 300.0  # seconds that a process may take to make its reader
HANGS = 120.0  # seconds of the clock after which an input is given up
MOST_DEATHS = 20
# Where the inputs of faults are kept, and where those of mended faults are.
KEPT = Path(tempfile.gettempdir()) / "slmx-hostile"
CORPUS = Path(__file__).parent / "corpus"
MEMORY = "/dev/shm"  # a folder in memory, on Linux


@dataclass
class Tried:
    """What became of a reader: the number of inputs, and the first fault of each kind with the number of its like."""

    inputs: int = 0
    faults: dict[str, Fault] = field(default_factory=dict)
    like: dict[str, int] = field(default_factory=dict)

    def add(self, fault: Fault) -> None:
        """Counts a fault."""
        self.faults.setdefault(fault.kind, fault)
        self.like[fault.kind] = self.like.get(fault.kind, 0) + 1


def try_reader(name: str, quick: bool, log: Log) -> Outcome:
    """Gives damaged contents to a reader in a process of its own."""
    return _outcome(name, _try_reader(_context(), name, QUICK_SECONDS if quick else READER_SECONDS))


def try_ten_million(name: str, quick: bool, log: Log) -> Outcome:
    """Gives ten million damaged contents to a reader, in a process for each core.

    What became of each part is kept until all are done, so that a run that was stopped goes on.
    """
    if quick:
        return try_reader(name, quick, log)
    context = _context()
    KEPT.mkdir(exist_ok=True)

    def tried(start: int) -> Path:
        record = KEPT / f"{name}-{start}.json"
        if not record.is_file():
            outcome = _outcome(name, _try_reader(context, name, math.inf, range(start, start + PART)))
            write_file(record, json.dumps([outcome.tried, outcome.failures]).encode())
        return record

    total, records = Outcome(0, "damaged files"), []
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for record in threads.map(tried, range(0, TEN_MILLION, PART)):
            number, failures = json.loads(record.read_text("utf-8"))
            total.tried += number
            total.failures += failures
            records.append(record)
            log(f"{name}: {total.tried:,} damaged files, {len(total.failures):,} kinds of failures")
    for record in records:
        record.unlink()
    return total


def _outcome(name: str, tried: Tried) -> Outcome:
    failures = [line_of(name, fault, tried.like[kind]) for kind, fault in tried.faults.items()]
    return Outcome(tried.inputs, "damaged files", failures)


def _context() -> BaseContext:
    """Returns the way in which processes start: as copies of one that has imported the readers."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.reliability.fuzz_worker"])
    return context


def line_of(name: str, fault: Fault, count: int) -> str:
    """Keeps the input of a fault, and returns the line about it."""
    KEPT.mkdir(exist_ok=True)
    path = KEPT / f"{name}-{fault.number}"
    path.write_bytes(fault.content)
    return f"{name} ({count} like it): {fault.what}; again: python -m tests.reliability.hostile {name} {path}"


def _try_reader(context: BaseContext, name: str, seconds: float, numbers: range = range(MOST_INPUTS)) -> Tried:
    """Runs processes for a reader, one after the other if one dies, until the time or the numbers are over."""
    tried, start, deaths = Tried(), numbers.start, 0
    left = seconds
    while start < numbers.stop and left > 0 and deaths < MOST_DEATHS:
        folder = MEMORY if os.access(MEMORY, os.W_OK) else None
        with tempfile.TemporaryDirectory(prefix="slmx-fuzz-", dir=folder) as home:
            last, spent, how = _run_process(context, name, range(start, numbers.stop), left, Path(home), tried)
            left -= spent
            if last < 0:
                raise RuntimeError(f"{name}: its whole files are not read ({how}); the error is above")
            start = last + 1
            tried.inputs = start - numbers.start
            if not how:
                break
            deaths += 1
            tried.add(Fault(last, how, how, (Path(home) / INPUT).read_bytes()))
    return tried


def _run_process(
    context: BaseContext, name: str, numbers: range, seconds: float, home: Path, tried: Tried
) -> tuple[int, float, str]:
    """Runs one process; returns the number of its last input, its processor time, and how it ended if not well."""
    current: Any = context.Value(ctypes.c_longlong, -1, lock=False)  # its type in typeshed is that of one with a lock
    spent: Any = context.Value(ctypes.c_double, 0.0, lock=False)
    receiver, sender = context.Pipe(duplex=False)
    arguments = (name, numbers, seconds, home, current, spent, sender)
    process = context.Process(target=work, args=arguments)  # type: ignore[attr-defined]
    process.start()
    sender.close()
    since, last, is_done = time.monotonic(), -1, False
    while True:
        try:
            if receiver.poll(0.2):
                if (fault := receiver.recv()) is None:
                    is_done = True
                else:
                    tried.add(fault)
                continue
        except EOFError:
            process.join()
            return current.value, spent.value, "" if is_done else _death(process.exitcode)
        if current.value != last:
            since, last = time.monotonic(), current.value
        elif time.monotonic() - since > (HANGS if last >= 0 else STARTS):
            process.kill()
            process.join()
            return last, spent.value + HANGS, f"no end after {time.monotonic() - since:.0f} s"


def _death(code: int | None) -> str:
    """Returns how a process ended that did not come to its end."""
    return (
        f"the process died of {signal.Signals(-code).name}" if code is not None and code < 0 else "the process failed"
    )


def main() -> None:
    """Reads one file in this process and shows what happens."""
    name, file = sys.argv[1:]
    content = Path(file).read_bytes()
    print(f"{len(content):,} bytes: {content[:400]!r}")
    with tempfile.TemporaryDirectory() as home:
        fault = fault_of(READERS[name](Path(home)), content)
    if fault is None:
        print("read, or refused in one line")
    else:
        print(fault[0])
        traceback.print_exception(fault[1])


PROMISE = "Every damaged or hostile file works or gives one line of an error, in 5 s and in bounded memory."
MORE = (
    "The same for many more damaged files of the kinds that come from elsewhere most often: bundles, .slmx and weights."
)
CHECKS = {
    **{f"hostile-files:{name}": Check(PROMISE, functools.partial(try_reader, name)) for name in READERS},
    **{
        f"ten-million:{name}": Check(MORE, functools.partial(try_ten_million, name), in_short_form=False)
        for name in MOST_EXPOSED
    },
}

if __name__ == "__main__":
    main()
