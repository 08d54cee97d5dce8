"""A process that gives damaged contents to one reader, within limits of time and memory."""

from __future__ import annotations

import ctypes
import os
import resource
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from tests.reliability.mutate import mutated
from tests.reliability.reader import Reader, fault_of
from tests.reliability.readers import READERS

SECONDS = 5.0  # of processor time that an input may take; on a busy machine, that of the clock says less
GROWTH, GROWTH_PER_BYTE = 64 * 2**20, 4  # bytes of memory that an input may take, and as many for each of its bytes
ADDRESS_SPACE = 2 * 2**30  # beyond this, an allocation fails, so that no input takes the memory of the machine
INPUT = "input"
NOTICED = 2**22  # growth from which on the peak is reset
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Fault:
    """What was wrong with an input.

    Attributes:
        number: The number of the damage.
        what: What happened, in one line.
        kind: What two inputs with the same cause have in common.
        content: The input.
    """

    number: int
    what: str
    kind: str
    content: bytes


def place_of(error: BaseException) -> str:
    """Returns the last line of our own code that an error passed."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(ROOT)]
    ours = [frame for frame in frames if "tests" not in Path(frame.filename).relative_to(ROOT).parts]
    if not ours:
        return "no place in slmx"
    return f"{Path(ours[-1].filename).relative_to(ROOT)}:{ours[-1].lineno}"


def try_input(reader: Reader, number: int, content: bytes) -> Fault | None:
    """Reads one damaged content; returns what was wrong."""
    before, started = _peak(), time.process_time()
    fault = fault_of(reader, content)
    seconds, growth = time.process_time() - started, _peak() - before
    if growth > NOTICED:
        reset_peak()
    if fault is not None:
        what, error = fault
        place = place_of(error)
        return Fault(number, f"{what} at {place}: {str(error)[:150]!a}", f"{what} {place}", content)
    if seconds > SECONDS:
        return Fault(number, f"{seconds:.1f} s", "time", content)
    if growth > GROWTH + GROWTH_PER_BYTE * len(content):
        return Fault(number, f"{growth >> 20} MiB for {len(content):,} bytes", "memory", content)
    return None


def work(
    name: str,
    numbers: range,
    seconds: float,
    home: Path,
    current: ctypes.c_longlong,
    spent: ctypes.c_double,
    pipe: Connection,
) -> None:
    """Tries inputs until the time or the numbers are over. This is the main function of the process.

    Args:
        name: The reader.
        numbers: The numbers of the damages.
        seconds: How long, in processor time.
        home: An empty folder. The parent finds the last input in it as `INPUT`.
        current: Gets the number of each damage before it is tried, in memory that the parent sees.
        spent: Gets the processor time of all inputs so far, likewise.
        pipe: Gets each `Fault`, and None at the end.
    """
    os.environ["SLMX_KEY_PASSPHRASE"] = "none"
    (home / "reader").mkdir()
    reader = READERS[name](home / "reader")
    for content in reader.seeds:
        if (fault := fault_of(reader, content)) is not None:
            raise fault[1]
    _be_quiet()
    size = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + ADDRESS_SPACE, size + ADDRESS_SPACE))
    reset_peak()
    started = time.process_time()
    for number in numbers:
        content = mutated(reader.seeds, reader.is_json, name, number)
        (home / INPUT).write_bytes(content)
        current.value = number
        if (found := try_input(reader, number, content)) is not None:
            pipe.send(found)
        spent.value = time.process_time() - started
        if spent.value > seconds:
            break
    pipe.send(None)
    pipe.close()


def _be_quiet() -> None:
    """Sends what libraries print to nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def reset_peak() -> None:
    """Lets the peak of the memory begin again at what is used now."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", "ascii")
