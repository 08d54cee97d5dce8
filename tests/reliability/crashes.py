"""A kill at any call that changes the disk leaves the old output or the new one, and the next run mends the rest."""

from __future__ import annotations

import functools
import random
import signal
from dataclasses import replace

from slm.console.notice import Log
from tests.reliability.forks import Fault, Forks
from tests.reliability.outcome import Check, Outcome
from tests.reliability.stages import Stage, stage_of
from tests.reliability.writers import NEW, WRITERS, Writer

QUICK = ("generate --save", "sign", "unpack")  # the writers of the short form; they need no PyTorch
QUICK_KILLS = 6
RANDOM_KILLS = 20


def run(writer: Writer, quick: bool, log: Log) -> Outcome:
    """Kills a writer."""
    found = Outcome(0, "kills")
    with stage_of(writer, log) as (children, stage):
        count = len(stage.calls)
        writes = {call for call, name in enumerate(stage.calls) if "write" in name.split()[0]}
        faults = [Fault(call, mode) for call in range(count) for mode in _modes(call in writes)]
        if quick:
            faults = [faults[place * len(faults) // QUICK_KILLS] for place in range(QUICK_KILLS)]
        killed = sum(_kill(stage, children, fault, None, found) for fault in faults)
        rng = random.Random(writer.name)
        longest = children.run(stage.writer.job(stage.copy())).seconds
        for _ in range(0 if quick else RANDOM_KILLS):
            _kill(stage, children, None, rng.uniform(0, longest), found)
    found.figures |= {"calls": count, "killed at calls": killed}
    return found


def _modes(is_write: bool) -> tuple[str, ...]:
    return ("kill", "kill halfway") if is_write else ("kill",)


def _kill(stage: Stage, children: Forks, fault: Fault | None, seconds: float | None, found: Outcome) -> bool:
    """Kills a command once, and then runs it to its end. Returns whether it was killed before it ended."""
    found.tried += 1
    folder, writer = stage.copy(), stage.writer
    if fault is None:
        ended = children.run(replace(writer.job(folder), seconds=seconds))
        when = f"{writer.name}: killed after {seconds:.4f} s"
    else:
        ended = children.run(replace(writer.job(folder), fault=fault))
        when = f"{writer.name}: {fault.mode} at call {fault.call}, {stage.calls[fault.call]}"
    if problem := stage.problem(folder):
        found.failures.append(f"{when}: {problem}")
        return ended.code == -signal.SIGKILL
    again = children.run(writer.job(folder, writer.again(folder, writer.argv)))
    done = "exists already" in again.line and not stage.problem(folder, (NEW,))
    if again.code and not done:
        found.failures.append(f"{when}: the next run ends with {again.code}: {again.line}")
    elif problem := stage.problem(folder, (NEW,)) or stage.leftovers(folder):
        found.failures.append(f"{when}: after the next run {problem}")
    return ended.code == -signal.SIGKILL


PROMISE = (
    "A command that is killed at any moment leaves its old output or its new one, and the next run mends the rest."
)
CHECKS = {
    f"crashes:{writer.name}": Check(PROMISE, functools.partial(run, writer), "cc", in_short_form=writer.name in QUICK)
    for writer in WRITERS
}
