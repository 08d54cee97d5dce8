"""A kill at any call that changes the disk leaves the old output or the new one, and the next run mends the rest."""

from __future__ import annotations

import random
import signal
from dataclasses import replace

from tests.reliability.forks import Fault, Forks
from tests.reliability.outcome import Check, Log, Outcome
from tests.reliability.stages import Stage, stages
from tests.reliability.writers import FULL, NEW

QUICK = ("generate --save", "sign", "unpack")
QUICK_KILLS = 6
RANDOM_KILLS = 20


def run(quick: bool, log: Log) -> Outcome:
    """Tries the promise."""
    found = Outcome(0, "kills")
    with stages(QUICK if quick else [writer.name for writer in FULL], log) as (children, made):
        for stage in made:
            count = len(stage.calls)
            writes = {call for call, name in enumerate(stage.calls) if "write" in name.split()[0]}
            faults = [Fault(call, mode) for call in range(count) for mode in _modes(call in writes)]
            if quick:
                faults = [faults[place * len(faults) // QUICK_KILLS] for place in range(QUICK_KILLS)]
            failed = len(found.failures)
            killed = sum(_kill(stage, children, fault, None, found) for fault in faults)
            rng = random.Random(stage.writer.name)
            longest = children.run(stage.writer.job(stage.copy())).seconds
            for _ in range(0 if quick else RANDOM_KILLS):
                _kill(stage, children, None, rng.uniform(0, longest), found)
            log(f"{stage.writer.name}: killed at {killed} of {len(faults)}, {len(found.failures) - failed} failed")
            found.figures[stage.writer.name] = {"calls": count, "killed at calls": killed}
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


CHECKS = {
    "crashes": Check(
        "A command that is killed at any moment leaves its old output or its new one, and the next run mends the rest.",
        run,
        needs="cc",
    )
}
