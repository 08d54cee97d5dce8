"""What the studies that write a file have in common: their command line, their errors, the folder of the file."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import typer

from slm.console.errors import SlmxError, UsageError


def command_line(study: str) -> str:
    """Returns the command that started this process."""
    return shlex.join(["python", "-m", f"benchmarks.studies.{study}", *sys.argv[1:]])


def check_folder(out: Path) -> None:
    """Raises UsageError if the folder of a file does not exist, before a study takes its time."""
    if not out.absolute().parent.is_dir():
        raise UsageError(f"{out}: its folder does not exist; make it, or name another file with --out")


def run(study: str, main: Callable[..., None]) -> None:
    """Runs a study. A foreseeable failure is one line on stderr and exit code 1, or 2 for wrong usage."""
    try:
        typer.run(main)
    except SlmxError as error:
        typer.echo(f"benchmarks.studies.{study}: {error}", err=True)
        raise SystemExit(error.exit_code) from None
