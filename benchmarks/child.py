"""Commands in processes of their own, of which only the output matters."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from slm.console.errors import SlmxError
from slm.storage.json_reader import as_plain_text


def output_of(command: Sequence[str], doing: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Runs a command and returns its output.

    Args:
        command: The command.
        doing: What it does, for the message of a failure.
        cwd: Its working folder; None for that of this process.
        env: Its environment; None for that of this process.

    Raises:
        SlmxError: It fails. The message has the last line that it wrote.
    """
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", cwd=cwd, env=env)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
        raise SlmxError(f"{doing} failed: {as_plain_text(lines[-1])}")
    return done.stdout
