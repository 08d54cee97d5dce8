"""The reference of the command line in docs/commands.md, from the commands themselves."""

from __future__ import annotations

import inspect
from typing import Any

import typer

from slm.cli import COMMANDS, app
from slm.console.examples import EXAMPLES


def reference() -> str:
    """Returns a section for each command: what it does, its arguments and its options by panel."""
    group: Any = typer.main.get_command(app)
    return "\n\n".join(_section(name, group.get_command(None, name)) for name in COMMANDS)


def _section(name: str, command: Any) -> str:  # noqa: ANN401  # a command of click
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    usage = " ".join(_usage(command, one) for one in arguments)
    parts = [f"## slmx {name}", inspect.cleandoc(command.help or ""), f"    slmx {name} [OPTIONS] {usage}".rstrip()]
    panels: dict[str, list[str]] = {}
    for parameter in command.params:
        if getattr(parameter, "hidden", False) or parameter.name == "help":
            continue
        title = parameter.rich_help_panel or ("Arguments" if parameter in arguments else "Options")
        panels.setdefault(title, []).append(_row(command, parameter))
    for title, rows in panels.items():
        parts.append("\n".join([f"| {title} | | |", "|---|---|---|", *rows]))
    parts.append("\n".join(("Examples:", "", *(f"    {line}" for line in EXAMPLES[name]))))
    return "\n\n".join(parts)


def _usage(command: Any, argument: Any) -> str:  # noqa: ANN401  # of click
    """Returns an argument as a usage line has it: in square brackets if it may be left out."""
    name = argument.make_metavar(_context(command))
    return name if argument.required else f"[{name}]"


def _row(command: Any, parameter: Any) -> str:  # noqa: ANN401  # a parameter of click
    context = _context(command)
    if parameter.param_type_name == "argument":
        names, text = parameter.make_metavar(context), parameter.help or ""
    else:
        names, text = ", ".join([*parameter.opts, *parameter.secondary_opts]), parameter.help or ""
        if not parameter.is_flag:
            names += f" {parameter.make_metavar(context)}"
    names = names.replace("|", "\\|")
    return f"| `{names}` | {_cell(text)}{_range(parameter)} | {_cell(_default(parameter))} |"


def _range(parameter: Any) -> str:  # noqa: ANN401  # a parameter of click
    """Returns the numbers that an option takes, as --help shows them; "" if it takes any."""
    described = getattr(parameter.type, "_describe_range", None)
    return "" if described is None else f" `{described()}`"


def _default(parameter: Any) -> str:  # noqa: ANN401  # a parameter of click
    """Returns the default as --help shows it; "" if there is none."""
    shown = parameter.show_default
    if isinstance(shown, str):
        return shown
    if any(parameter.default is nothing for nothing in (None, False, ())) or shown is False:
        return ""
    return str(parameter.default)


def _context(command: Any) -> Any:  # noqa: ANN401  # of click
    return command.context_class(command)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
