"""The modules that `python -m` runs: how they start, how they fail, and the command line that started them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import typer

from benchmarks.child import ROOT
from slm.console.errors import SlmxError
from slm.console.plain_text import escaped
from slm.console.signals import signals_end_as_exceptions
from slm.storage.system_errors import system_line


def program_name() -> str:
    """Returns the module that `python -m` runs in this process, such as `benchmarks.studies.uses`."""
    path = Path(sys.argv[0]).resolve()
    parts = path.relative_to(ROOT).with_suffix("").parts if path.is_relative_to(ROOT) else (path.stem,)
    return ".".join(part for part in parts if part != "__main__")


def command_line() -> str:
    """Returns the command that started this process."""
    return shlex.join(["python", "-m", program_name(), *sys.argv[1:]])


def run(main: Callable[..., None]) -> None:
    """Runs a function as a command. A foreseeable failure is one line on stderr, and exit code 1, or 2 for usage.

    SIGTERM ends it as an exception does, so that the servers that it started end too and its temporary folders are
    removed.
    """
    try:
        with signals_end_as_exceptions():
            typer.run(main)
    except SlmxError as error:
        _tell(str(error))
        raise SystemExit(error.exit_code) from None
    except OSError as error:
        if error.strerror is None:
            raise
        _tell(system_line(error))
        raise SystemExit(1) from None


def _tell(message: str) -> None:
    typer.echo(f"{program_name()}: {escaped(message)}", err=True)
