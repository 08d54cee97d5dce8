"""No file, however damaged or hostile, does anything but work or give one line of SlmxError.

`python -m tests.reliability.hostile READER NUMBER [FILE]` tries one input again, and writes it to FILE.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext
from pathlib import Path

from tests.reliability.fuzz_worker import SECONDS, Fault, work
from tests.reliability.mutate import mutated
from tests.reliability.outcome import Check, Log, Outcome
from tests.reliability.reader import fault_of
from tests.reliability.readers import READERS

READER_SECONDS, QUICK_SECONDS = 600.0, 0.8
READER_INPUTS = 1_000_000
AT_ONCE = min(2, os.cpu_count() or 1)
STARTS = 60.0  # seconds that a process may take to make its reader
HANGS = 4 * SECONDS
MOST_DEATHS = 20


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


def run_hostile(quick: bool, log: Log) -> Outcome:
    """Gives damaged contents to every reader, each in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.reliability.fuzz_worker"])
    seconds = QUICK_SECONDS if quick else READER_SECONDS

    def one(name: str) -> Tried:
        tried = _try_reader(context, name, seconds)
        log(f"{name}: {tried.inputs:,} inputs, {sum(tried.like.values())} faults")
        return tried

    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = dict(zip(READERS, pool.map(one, READERS), strict=True))
    failures = [
        f"{name} {fault.number} ({tried.like[kind]} like it): {fault.what}; "
        f"again: python -m tests.reliability.hostile {name} {fault.number}"
        for name, tried in found.items()
        for kind, fault in tried.faults.items()
    ]
    inputs = {name: tried.inputs for name, tried in found.items()}
    return Outcome(sum(inputs.values()), "damaged files", failures, {"inputs of each reader": inputs})


def _try_reader(context: ForkServerContext, name: str, seconds: float) -> Tried:
    """Runs processes for a reader, one after the other if one dies, until the time is over."""
    tried, start, deaths = Tried(), 0, 0
    end = 0.0
    while start < READER_INPUTS and deaths < MOST_DEATHS:
        current = context.Value("q", -1, lock=False)
        receiver, sender = context.Pipe(duplex=False)
        left = end - time.monotonic() if end else seconds
        if left <= 0:
            break
        process = context.Process(target=work, args=(name, start, left, READER_INPUTS, current, sender))
        process.start()
        sender.close()
        since, last = time.monotonic(), -1
        how = ""
        while True:
            try:
                if receiver.poll(0.2):
                    tried.add(receiver.recv())
                    continue
            except EOFError:
                process.join()
                how = _death(process.exitcode)
                break
            if current.value != last:
                if last == -1:
                    end = end or time.monotonic() + seconds
                since, last = time.monotonic(), current.value
            elif time.monotonic() - since > (HANGS if last >= 0 else STARTS):
                process.kill()
                process.join()
                how = f"no end after {HANGS:.0f} s"
                break
        if current.value < 0:
            raise RuntimeError(f"{name}: whole files are not read ({how}); its error is above")
        start = current.value + bool(how)
        tried.inputs = max(tried.inputs, start)
        if not how:
            break
        deaths += 1
        tried.add(Fault(current.value, how, how))
    return tried


def _death(code: int | None) -> str:
    """Returns how a process ended; nothing if that was well."""
    if not code:
        return ""
    return f"the process died of {signal.Signals(-code).name}" if code < 0 else "the process failed"


def main() -> None:
    """Tries one input again in this process, and shows what happens."""
    name, number = sys.argv[1], int(sys.argv[2])
    with tempfile.TemporaryDirectory() as home:
        reader = READERS[name](Path(home))
        content = mutated(reader.seeds, reader.is_json, name, number)
        if len(sys.argv) > 3:
            Path(sys.argv[3]).write_bytes(content)
        print(f"{len(content):,} bytes: {content[:400]!r}")
        fault = fault_of(reader, content)
    if fault is None:
        print("read, or refused in one line")
    else:
        print(fault[0])
        traceback.print_exception(fault[1])


CHECKS = {
    "hostile-files": Check(
        "No damaged or hostile file does anything but work or give one line of an error, in 5 s and in bounded memory.",
        run_hostile,
    )
}

if __name__ == "__main__":
    main()
