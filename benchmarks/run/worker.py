"""The process in which one case is measured: python -m benchmarks.run.worker, driven over its pipes.

The first line of stdin is a job as JSON. One JSON line answers it when the model is loaded, with seconds and bytes;
then each line "round" is answered by one round, until "quit" or the end of stdin. What libraries print goes to stderr.
Nothing heavy is imported before the first measurement of memory.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any, TextIO

from slm.errors import SlmxError


def peak_bytes() -> int:
    """The most resident memory that this process ever had: VmHWM, or what the system calls so elsewhere."""
    try:
        with open("/proc/self/status", encoding="utf-8") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        import resource

        unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes there, kilobytes elsewhere
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def private_stdout() -> TextIO:
    """The pipe to the parent, while everything else that is printed goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def serve(commands: TextIO, answers: TextIO) -> None:
    """Answer the job and then each command; an error of the side is one line on stderr and exit code 1."""

    def answer(values: dict[str, Any]) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    interpreter = peak_bytes()
    from dataclasses import asdict

    from benchmarks.run.runners import Job, import_side, open_side

    job = Job(**json.loads(commands.readline()))
    import_side(job)
    imports = peak_bytes()
    started = time.perf_counter()
    run = open_side(job)
    load_seconds = time.perf_counter() - started
    answer({"load_seconds": load_seconds, "interpreter_bytes": interpreter, "imports_bytes": imports})
    for command in commands:
        if command.strip() != "round":
            break
        done = run()
        answer({**asdict(done), "peak_bytes": peak_bytes()})


def main() -> None:
    """Serve stdin; exceptions end the process with their own last line on stderr."""
    answers = private_stdout()
    try:
        serve(sys.stdin, answers)
    except Exception as error:  # whatever a side raises is the parent's note
        text = str(error) if isinstance(error, SlmxError) else f"{type(error).__name__}: {error}"
        print(text.splitlines()[0], file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
