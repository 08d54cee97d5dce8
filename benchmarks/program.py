"""The modules that `python -m` runs: how they start, how they fail, and the command line that started them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import typer

from benchmarks.child import ROOT
from slm.console.errors import SlmxError


def program_name() -> str:
    """Returns the module that `python -m` runs in this process, such as `benchmarks.studies.uses`."""
    path = Path(sys.argv[0]).resolve()
    parts = path.relative_to(ROOT).with_suffix("").parts if path.is_relative_to(ROOT) else (path.stem,)
    return ".".join(part for part in parts if part != "__main__")


def command_line() -> str:
    """Returns the command that started this process."""
    return shlex.join(["python", "-m", program_name(), *sys.argv[1:]])


def run(main: Callable[..., None]) -> None:
    """Runs a function as a command. A foreseeable failure is one line on stderr, and exit code 1, or 2 for usage."""
    try:
        typer.run(main)
    except SlmxError as error:
        typer.echo(f"{program_name()}: {error}", err=True)
        raise SystemExit(error.exit_code) from None
