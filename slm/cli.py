"""The `slmx` command: a table of subcommands, each loaded when it is needed."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
from contextlib import suppress
from importlib import import_module
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from slm import __version__
from slm.console.errors import NeedsForceError, SlmxError, UsageError
from slm.console.examples import EXAMPLES
from slm.console.plain_text import escaped
from slm.console.signals import signals_end_as_exceptions
from slm.console.usage import ClickException, ClickUsageError, command_here, refuse_odd_values, usage_line
from slm.storage.system_errors import system_line

# Name of each command: the module and the function that run it. The first line of its docstring is shown by --help.
COMMANDS = {
    "generate": ("runtimes.generate.commands", "generate"),
    "serve": ("runtimes.serve.commands", "serve"),
    "web": ("runtimes.web.commands", "web"),
    "list": ("runtimes.hub.commands", "list_bundles"),
    "info": ("runtimes.checks.commands", "info"),
    "verify": ("export.commands", "verify"),
    "export": ("export.commands", "export"),
    "import": ("slm.commands", "import_model"),
    "rm": ("runtimes.hub.commands", "remove"),
    "presets": ("runtimes.checks.commands", "presets"),
    "prepare": ("slm.commands", "prepare"),
    "train": ("slm.commands", "train"),
    "evaluate": ("benchmarks.evaluation.commands", "evaluate"),
    "average": ("slm.commands", "average"),
    "pull": ("runtimes.hub.commands", "pull"),
    "push": ("runtimes.hub.commands", "push"),
    "pack": ("runtimes.pack.commands", "pack"),
    "unpack": ("runtimes.pack.commands", "unpack"),
    "sign": ("runtimes.pack.commands", "sign"),
    "keygen": ("runtimes.pack.commands", "keygen"),
    "doctor": ("runtimes.checks.commands", "doctor"),
    "bench": ("benchmarks.commands", "bench"),
    "compare": ("benchmarks.commands", "compare"),
}
# The option that makes a record of the log of each error of a command, and the module and the function that do it.
LOGGED = {"serve": ("--log-json", "runtimes.serve.protocol.log", "log_to_stderr")}
# The groups of commands in --help, in order, each with its first command in the order of COMMANDS.
GROUPS = {
    "generate": "Stories",
    "list": "Models",
    "presets": "Training",
    "pull": "Sharing",
    "doctor": "Measuring",
}
GREETING = """slmx writes short stories with small models that run on this machine.

  slmx generate "Once upon a time"   writes a story
  slmx train --text stories.txt --out runs/mine
                                     makes your own model
  slmx --help                        lists all commands
  slmx COMMAND --help                explains one"""

# Turns of a loop for which a thread of PyTorch's OpenMP (GNU libgomp) waits actively for the others before it sleeps.
# The default of 300,000 makes a training beside one busy program 1.6 times slower than this, and beside two 4 times
# slower. On an idle machine both are equally fast. docs/training.md has the figures. libgomp reads it when it loads.
SPIN_TURNS = "1000"
LONGEST_LINE = 10_000  # characters of an error
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
        examples = "\n\n".join(("Examples:", *EXAMPLES.get(cmd_name, ())))
        run = getattr(import_module(module), function)
        single.command(cmd_name, rich_help_panel=_group(cmd_name), epilog=examples)(run)
        command = typer.main.get_command(single)
        assert isinstance(command, typer.core.TyperCommand)
        refuse_odd_values(command)
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401  # types of click
        """Finds the command that the first argument names; UsageError if there is none."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise UsageError(f"unknown command {args[0][:80]!r}{command_here(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)


def _group(name: str) -> str:
    """Returns the group of a command in --help: that of the last command before it that begins one."""
    names = list(COMMANDS)
    return [group for first, group in GROUPS.items() if names.index(first) <= names.index(name)][-1]


app = typer.Typer(name="slmx", cls=LazyGroup, pretty_exceptions_enable=False)


def _print_version(wanted: bool) -> None:
    """Prints the versions of slmx and of the libraries that run models, then ends the command."""
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        for name in ("slmx", "onnxruntime", "torch"):
            with suppress(PackageNotFoundError):
                typer.echo(f"{name} {__version__ if name == 'slmx' else version(name)}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def slmx(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show versions and exit."),
    ] = False,
) -> None:
    """Train small GPT story models and run them on edge machines."""
    if context.invoked_subcommand is None:
        typer.echo(GREETING)


def _columns_are_usable() -> bool:
    """Returns whether COLUMNS is a width: rich takes 0 for one and prints nothing, and fails at thousands of digits."""
    return re.fullmatch(r"[1-9][0-9]{0,5}", os.environ.get("COLUMNS", "80")) is not None


def main() -> None:
    """Runs the command line. A failure that can be foreseen is one line on stderr.

    The exit code is then 1, or 2 for wrong usage. That line names the command and its --help.
    """
    if not _columns_are_usable():
        del os.environ["COLUMNS"]
    try:
        with signals_end_as_exceptions() as signals:
            code = app(prog_name="slmx", standalone_mode=False)
        raise SystemExit(code)
    except ClickUsageError as error:
        _fail(UsageError(usage_line(error)))
    except ClickException as error:
        _fail(SlmxError(usage_line(error)))
    except typer.Abort:
        _fail(SlmxError("stopped"))
    except SlmxError as error:
        _fail(error)
    except OSError as error:
        if error.strerror is None:
            raise
        _tell(f"slmx: {system_line(error)}")
        raise SystemExit(1) from None
    except SystemExit as error:
        if signals.number == signal.SIGTERM and error.code == 128 + signal.SIGTERM:
            with suppress(OSError):
                _tell("slmx: stopped by SIGTERM")
        raise
    except Exception:
        if signals.number:  # an import that a signal stops fails in many ways
            raise SystemExit(128 + signals.number) from None
        raise


def _with_force(words: list[str]) -> list[str]:
    """Returns the words of a command with --force. After `--`, no word is an option."""
    end = words.index("--") if "--" in words else len(words)
    return [*words[:end], "--force", *words[end:]]


def _fail(error: SlmxError) -> NoReturn:
    """Ends the command with the line of an error on stderr."""
    command = f"slmx {sys.argv[1]}" if sys.argv[1:2] and sys.argv[1] in COMMANDS else "slmx"
    option, module, function = LOGGED.get(command.removeprefix("slmx "), ("", "", ""))
    if option and option in sys.argv[2:]:  # wrong usage that was found before the command ran
        with getattr(import_module(module), function)(as_json=True):
            raise error
    is_usage = isinstance(error, UsageError)
    again = f": {shlex.join(['slmx', *_with_force(sys.argv[1:])])}" if isinstance(error, NeedsForceError) else ""
    _tell(f"{command}: {error}; see {command} --help" if is_usage else f"slmx: {error}{again}")
    raise SystemExit(error.exit_code) from None


def _tell(message: str) -> None:
    """Prints an error as one line on stderr. Control characters, such as a line break in a name, are escaped."""
    typer.echo(escaped(message.strip()[:LONGEST_LINE]), err=True)
