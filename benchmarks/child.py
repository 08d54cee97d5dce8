"""Commands in processes of their own, of which only the output matters, and where a process finds this code."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from slm.console.errors import SlmxError
from slm.console.plain_text import as_plain_text

ROOT = Path(__file__).resolve().parents[1]  # of this source tree


def output_of(
    command: Sequence[str],
    doing: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    shows_errors: bool = False,
) -> str:
    """Runs a command and returns its output.

    Args:
        command: The command.
        doing: What it does, for the message of a failure.
        cwd: Its working folder; None for that of this process.
        env: Its environment; None for that of this process.
        shows_errors: Whether its stderr is that of this process, as for one that takes long and says how far it is.

    Raises:
        SlmxError: It cannot be started, or it fails. The message has the last line that it wrote, if it is not shown.
    """
    errors = None if shows_errors else subprocess.PIPE
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, errors="replace", cwd=cwd, env=env
        )
    except OSError as error:
        raise SlmxError(f"{doing} failed: {not_started(command, error)}") from error
    if done.returncode:
        output = "" if shows_errors else (done.stderr or done.stdout).strip()
        reason = output.splitlines()[-1] if output else f"exit code {done.returncode}"
        raise SlmxError(f"{doing} failed: {as_plain_text(reason)}")
    return done.stdout


def not_started(command: Sequence[str], error: OSError) -> str:
    """Returns why a command cannot be started, and what to do."""
    return f"cannot start {as_plain_text(str(command[0]))} ({error.strerror}); install it, or check its path"


def worker_environment(**added: str) -> dict[str, str]:
    """Returns an environment in which a process imports the same packages as this one, with variables added."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **added}
