"""A disk that fails, is full or is read-only, a second writer, a clock that goes back, and a folder that is moved."""

from __future__ import annotations

import errno
import functools
import os
import random
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from slm.console.notice import Log
from slm.storage.locks import lock_folder
from tests.reliability.forks import Ended, Fault, Forks
from tests.reliability.outcome import Check, Outcome
from tests.reliability.stages import Stage, stage_of
from tests.reliability.writers import NEIGHBOURS, NEW, NONE, OLD, WRITERS, Writer

QUICK = ("generate --save", "sign", "unpack")  # the writers of the short form; they need no PyTorch
FAULTS = 200  # of each writer, at most
QUICK_FAULTS = 4
ROOMS = 12  # sizes of a full disk
QUICK_ROOMS = 2
MOVES = 8
QUICK_MOVES = 2
WAITS_SECONDS = 5.0  # after which a command that waits for another writer is killed
FUTURE = 4e9  # seconds: a day in the year 2096
# What happens at a call, and at those after it.
WAYS = (
    ("fail once", errno.EIO),
    ("fail from", errno.EIO),
    ("full from", errno.ENOSPC),
    ("full from", errno.EDQUOT),
    ("fail from", errno.EROFS),
)
ADVICE = re.compile(
    r"; (?:check|choose another|copy|delete|free space|make|move|name another|set|use another|wait for it)\b"
    r"|; it is incomplete, .* moves them in$"
)
SAID_ABOVE = "not written ("  # slmx verify prints what it finds, and a file of it is no condition


def run(writer: Writer, quick: bool, log: Log) -> Outcome:
    """Disturbs a writer."""
    found = Outcome(0, "failing disks, second writers and moved folders")
    with stage_of(writer, log) as (children, stage):
        _faults(stage, children, found, QUICK_FAULTS if quick else FAULTS)
        _mounted(stage, children, found, QUICK_ROOMS if quick else ROOMS, log)
        _second_writer(stage, children, found)
        _clock(stage, children, found)
        _moved(stage, children, found, QUICK_MOVES if quick else MOVES)
    return found


def _faults(stage: Stage, children: Forks, found: Outcome, most: int) -> None:
    """Lets a call fail, alone or with all after it. Then the disk works again, and so does the command."""
    faults = [Fault(call, way, number) for call in range(len(stage.calls)) for way, number in WAYS]
    faults = random.Random(stage.writer.name).sample(faults, min(most, len(faults)))
    for fault in faults:
        found.tried += 1
        folder, writer = stage.copy(), stage.writer
        ended = children.run(replace(writer.job(folder), fault=fault))
        name = errno.errorcode[fault.error]
        when = f"{writer.name}: {fault.mode} with {name} at call {fault.call}, {stage.calls[fault.call]}"
        if problem := _problem(stage, folder, ended):
            found.failures.append(f"{when}: {problem}")
            continue
        again = children.run(writer.job(folder, writer.again(folder, writer.argv)))
        there = "exists already" in again.line
        if again.code and not there:
            found.failures.append(f"{when}: the next run ends with {again.code}: {again.line}")
        elif problem := stage.problem(folder, (NEW,)) or stage.leftovers(folder):
            found.failures.append(f"{when}: after the next run {problem}")


def _problem(stage: Stage, folder: Path, ended: Ended) -> str:
    """What is wrong with a command that a disk disturbed, and with what it left; "" if nothing is."""
    if problem := line_problem(ended, stage.after):
        return problem
    if SAID_ABOVE in ended.line:
        return stage.problem(folder, (OLD, NONE))
    if problem := stage.problem(folder, (OLD, NEW, NONE) if ended.code else (NEW,)):
        return problem
    about_all = ended.line.startswith(f"slmx: {stage.writer.locked}: ")
    if about_all and "nothing was changed" in ended.line and not stage.problem(folder, (NEW,)):
        return f"the new output is there: {ended.line}"
    return ""


def line_problem(ended: Ended, after: Path) -> str:
    """What is wrong with how a command ended; "" if it succeeded, or its last line says what, where and what to do."""
    if "Traceback" in ended.stderr or ended.code not in (0, 1):
        return f"it ends with {ended.code}: {ended.line}"
    if not ended.code or SAID_ABOVE in ended.line:
        return ""
    if not ended.line.startswith("slmx: ") or sum(line.startswith("slmx: ") for line in ended.stderr.splitlines()) > 1:
        return f"not one line: {ended.stderr[-300:]!r}"
    names = {path.name for path in after.rglob("*") if path.name not in NEIGHBOURS} | {after.parent.name}
    if not any(name in ended.line for name in names):
        return f"no file is named: {ended.line}"
    return "" if ADVICE.search(ended.line) else f"no advice: {ended.line}"


@contextmanager
def _small_disk(folder: Path, size: int) -> Iterator[None]:
    """A file system in memory of so many bytes on a folder, inside the block; OSError if that is not allowed here."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except subprocess.CalledProcessError as error:
        raise OSError(error.stderr.decode().strip()) from error
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _mounted(stage: Stage, children: Forks, found: Outcome, rooms: int, log: Log) -> None:
    """Runs the command on a small disk with little room, and on a read-only one."""
    folder, writer = stage.template.parent / "disk", stage.writer
    folder.mkdir()
    grows = sum(path.stat().st_size for path in stage.after.rglob("*") if path.is_file())
    try:
        for number in range(rooms + 1):
            with _small_disk(folder, 4 * grows + 2**22):
                shutil.copytree(stage.template, folder / "trial")
                trial = folder / "trial"
                found.tried += 1
                if number == rooms:
                    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
                    when = "read-only disk"
                else:
                    room = number * grows // rooms
                    when = f"disk with room for {room:,} bytes"
                    _fill(folder, room)
                ended = children.run(writer.job(trial))
                if problem := _problem(stage, trial, ended):
                    found.failures.append(f"{writer.name}: {when}: {problem}")
                elif ended.code == 0 and number == rooms and SAID_ABOVE not in ended.line:
                    found.failures.append(f"{writer.name}: {when}: it ends with 0")
    except OSError as error:
        log(f"{writer.name}: no small disks, because none can be mounted here ({error})")
    folder.rmdir()


def _fill(folder: Path, room: int) -> None:
    """Fills a disk until it has room for so many bytes."""
    free = os.statvfs(folder)
    left = free.f_bavail * free.f_frsize - room
    with (folder / "filler").open("wb") as file, suppress(OSError):
        file.write(bytes(max(0, left)))


def _second_writer(stage: Stage, children: Forks, found: Outcome) -> None:
    """Runs the command while another process writes there, and twice at the same time."""
    writer = stage.writer
    if writer.locked:
        found.tried += 1
        folder = stage.copy()
        with lock_folder(folder / writer.locked):
            ended = children.run(replace(writer.job(folder), seconds=WAITS_SECONDS if writer.waits else None))
        said = f"process {os.getpid()} is writing it" in ended.line
        if writer.waits:
            wrong = ended.code != -signal.SIGKILL or not said or "waiting for it" not in ended.line
        else:
            wrong = ended.code != 1 or not said or bool(line_problem(ended, stage.after))
        if wrong:
            found.failures.append(f"{writer.name}: beside another writer: {ended.code}: {ended.line}")
        elif problem := stage.problem(folder, (OLD, NONE)):
            found.failures.append(f"{writer.name}: beside another writer: {problem}")
    found.tried += 1
    folder = stage.copy()
    both = children.run_all([writer.job(folder)] * 2)
    problems = [problem for ended in both if (problem := line_problem(ended, stage.after))]
    problems += [] if any(not ended.code for ended in both) else ["both fail"]
    problems += [problem] if (problem := stage.problem(folder, (NEW,)) or stage.leftovers(folder)) else []
    found.failures += [f"{writer.name}: twice at once: {problem}" for problem in problems]


def _clock(stage: Stage, children: Forks, found: Outcome) -> None:
    """Runs the command, and again after a kill, on files that seem to come from the future."""
    writer = stage.writer
    for kill in (None, len(stage.calls) // 2):
        found.tried += 1
        folder = stage.copy()
        if kill is not None:
            children.run(replace(writer.job(folder), fault=Fault(kill, "kill")))
        for path in (folder, *folder.rglob("*")):
            os.utime(path, (FUTURE, FUTURE))
        ended = children.run(writer.job(folder, writer.again(folder, writer.argv)))
        problem = f"{ended.code}: {ended.line}" if ended.code else stage.problem(folder, (NEW,))
        if problem := problem or stage.leftovers(folder):
            found.failures.append(f"{writer.name}: with files from the future: {problem}")


def _moved(stage: Stage, children: Forks, found: Outcome, moves: int) -> None:
    """Moves the folder that the command reads away, at one of the files that it opens there."""
    writer = stage.writer
    for opened in range(moves if writer.reads else 0):
        found.tried += 1
        folder = stage.copy()
        ended = children.run(replace(writer.job(folder), move=(writer.reads, opened)))
        if problem := line_problem(ended, stage.after):
            found.failures.append(f"{writer.name}: {writer.reads} is moved at its file {opened}: {problem}")


PROMISE = (
    "A disk that fails, is full or read-only ends a command with one line, and the old output stays; "
    "so do a second writer, a clock that goes back, and a folder that is moved."
)
CHECKS = {
    f"disk:{writer.name}": Check(PROMISE, functools.partial(run, writer), "cc", in_short_form=writer.name in QUICK)
    for writer in WRITERS
}
