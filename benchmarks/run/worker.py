"""The process that measures one case: python -m benchmarks.run.worker. `measure` controls it through pipes.

The first line of stdin is a `Job` as JSON. When the model is loaded, the worker answers with a `Loaded` as one line of
JSON. After that it answers each line "round" with a `Measured`, until any other line or the end of stdin. The output of
libraries goes to stderr. No large package is imported before the first measurement of memory.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, TextIO

from slm.console.errors import SlmxError
from slm.memory import peak_bytes

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def private_stdout() -> TextIO:
    """Returns the pipe to the parent process. Everything else that is printed goes to stderr from now on."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
    os.dup2(2, 1)
    return answers


def serve(commands: TextIO, answers: TextIO) -> None:
    """Answers the job and then each "round". Exceptions of the runner are raised."""
    interpreter = peak_bytes()
    from dataclasses import asdict

    from benchmarks.run.runners import Job, Loaded, Measured, import_runner, open_runner

    def answer(value: DataclassInstance) -> None:
        answers.write(json.dumps(asdict(value)) + "\n")
        answers.flush()

    job = Job(**json.loads(commands.readline()))
    import_runner(job)
    imports = peak_bytes()
    started = time.perf_counter()
    run = open_runner(job)
    load_seconds = time.perf_counter() - started
    answer(Loaded(load_seconds, interpreter, imports))
    for command in commands:
        if command.strip() != "round":
            break
        done = run()
        answer(Measured(done, peak_bytes()))


def main() -> None:
    """Serves stdin. An exception ends the process with one line on stderr and exit code 1."""
    answers = private_stdout()
    try:
        serve(sys.stdin, answers)
    except Exception as error:  # the parent reports every exception of a runner
        text = str(error) if isinstance(error, SlmxError) else f"{type(error).__name__}: {error}"
        print(text.splitlines()[0], file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
