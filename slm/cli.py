"""The `slmx` command: a table of subcommands, each loaded when it is needed."""

from __future__ import annotations

import errno
import os
import sys
from importlib import import_module

import typer
from typer.core import TyperGroup

from slm.disk import WriteError
from slm.errors import SlmxError
from slm.signals import signals_end_as_exceptions

# Name of each command, in the order of --help: the module and the function that run it.
COMMANDS = {
    "prepare": ("slm.commands", "prepare"),
    "train": ("slm.commands", "train"),
    "average": ("slm.commands", "average"),
    "evaluate": ("benchmarks.evaluation.commands", "evaluate"),
    "import": ("slm.commands", "import_model"),
    "export": ("export.commands", "export"),
    "verify": ("export.commands", "verify"),
    "info": ("runtimes.checks.commands", "info"),
    "generate": ("runtimes.commands", "generate"),
    "web": ("runtimes.web.commands", "web"),
    "serve": ("runtimes.serve.commands", "serve"),
    "pack": ("runtimes.pack.commands", "pack"),
    "unpack": ("runtimes.pack.commands", "unpack"),
    "keygen": ("runtimes.pack.commands", "keygen"),
    "sign": ("runtimes.pack.commands", "sign"),
    "list": ("runtimes.hub.commands", "list_bundles"),
    "pull": ("runtimes.hub.commands", "pull"),
    "push": ("runtimes.hub.commands", "push"),
    "rm": ("runtimes.hub.commands", "remove"),
    "doctor": ("runtimes.checks.commands", "doctor"),
    "bench": ("benchmarks.commands", "bench"),
    "compare": ("benchmarks.commands", "compare"),
    "presets": ("slm.commands", "presets"),
}

# Turns of a loop for which a thread of PyTorch's OpenMP (GNU libgomp) waits actively for the others before it sleeps.
# The default of 300,000 makes a training beside one busy program 1.6 times slower than this, and beside two 4 times
# slower. On an idle machine both are equally fast. docs/training.md has the figures. libgomp reads it when it loads.
SPIN_TURNS = "1000"
# A benchmark measures PyTorch and other runtimes with their own defaults.
WITHOUT_SHORT_SPIN = ("bench",)


class LazyGroup(TyperGroup):
    """A group of commands that imports the module of a command when the command is asked for."""

    def list_commands(self, ctx: object) -> list[str]:
        """Returns the names of all commands, in the order of --help."""
        return list(COMMANDS)

    def get_command(self, ctx: object, cmd_name: str) -> typer.core.TyperCommand | None:
        """Returns the command of that name, or None if there is none."""
        if cmd_name not in COMMANDS:
            return None
        if cmd_name not in WITHOUT_SHORT_SPIN:
            os.environ.setdefault("GOMP_SPINCOUNT", SPIN_TURNS)
        module, function = COMMANDS[cmd_name]
        single = typer.Typer(add_completion=False)
        single.command(cmd_name)(getattr(import_module(module), function))
        command = typer.main.get_command(single)
        assert isinstance(command, typer.core.TyperCommand)
        return command


app = typer.Typer(
    name="slmx",
    cls=LazyGroup,
    help="Train small GPT story models and run them on edge machines.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def slmx() -> None:
    """Train small GPT story models and run them on edge machines."""


def main() -> None:
    """Runs the command line; a foreseeable failure is one line on stderr and exit code 1, or 2 for wrong usage."""
    try:
        with signals_end_as_exceptions() as signals:
            app()
    except SlmxError as error:
        typer.echo(f"slmx: {error}", err=True)
        raise SystemExit(error.exit_code) from None
    except OSError as error:
        if error.strerror is None:
            raise
        where = error.filename or ("standard output" if error.errno == errno.ENOSPC and _stdout_is_full() else "")
        said = f"{where}{': ' if where else ''}{error.strerror}"
        typer.echo(f"slmx: {error if isinstance(error, WriteError) else said}", err=True)
        raise SystemExit(1) from None
    except Exception:
        if signals.number:  # an import that a signal stops fails in many ways
            raise SystemExit(128 + signals.number) from None
        raise


def _stdout_is_full() -> bool:
    """Returns whether standard output is a file on a full disk, or a device that takes nothing."""
    try:
        os.write(1, b"")
        if sys.platform == "win32":
            return False
        disk = os.fstatvfs(1)
    except OSError as error:
        return error.errno == errno.ENOSPC
    return disk.f_blocks > 0 and disk.f_bavail == 0  # a pipe has no blocks
