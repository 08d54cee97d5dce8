"""What the command line says about wrong usage: one line, which names the option, the choices and the nearest one."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from copy import copy
from functools import partial
from typing import Any, TypeAlias, cast

import typer

from slm.console.errors import did_you_mean, unknown

# typer has its own copy of click in new versions and imports it in older ones. Both have these classes.
_Errors: TypeAlias = tuple[type[Exception], type[Exception]]
ClickUsageError, ClickException = cast(_Errors, typer.BadParameter.__mro__[1:3])
# How help shows an option that takes several names.
NAMES = "NAME,..."
# A wider list of choices would leave too few columns of 80 for the text beside it.
WIDEST = 24

# Commands of other programs, and what does the same here.
COMMANDS_ELSEWHERE = {
    "run": "slmx generate writes a story",
    "chat": "slmx generate -i writes a story in turns with you",
    "complete": "slmx generate writes a story",
    "show": "slmx info shows what a bundle holds",
    "ls": "slmx list lists the bundles",
    "create": "slmx export makes a bundle of a checkpoint",
    "convert": "slmx import reads a model of another program, slmx export makes a bundle of it",
    "quantize": "slmx export --int8 makes the small variant of a model",
    "finetune": "slmx train --init CHECKPOINT goes on from a model",
    "server": "slmx serve answers requests",
    "delete": "slmx rm removes a bundle",
    "download": "slmx pull brings a bundle",
    "upload": "slmx push sends a bundle",
    "help": "slmx --help lists the commands",
    "version": "slmx --version shows it",
}
# The same for options, without their dashes: the option here, or what to do without one.
OPTIONS_ELSEWHERE = {
    "model": ("--bundle", "--checkpoint", "--init"),
    "m": ("--bundle", "--checkpoint", "--init"),
    "max-new-tokens": ("--max-tokens",),
    "max-length": ("--max-tokens",),
    "n-predict": ("--max-tokens",),
    "temp": ("--temperature",),
    "t": ("--threads",),
    "num-return-sequences": ("--count",),
    "repeat-penalty": ("--repetition-penalty",),
    "file": ("--prompt-file",),
    "f": ("--prompt-file",),
    "output": ("--out",),
    "o": ("--out",),
    "output-dir": ("--out",),
    "data": ("--text",),
    "epochs": ("--steps",),
    "lr": ("--learning-rate",),
    "quantization": ("--variant",),
}
# For a command without arguments: the option that words after it were probably meant for.
WORDS_ELSEWHERE = {"export": "--checkpoint", "train": "--text"}
# Options that name an output. Control characters, which a terminal would execute, and `-` are refused.
WRITTEN = ("out", "save", "rating_sheet")
# A story may begin with nothing.
MAY_BE_EMPTY = ("prompt",)
# Options of others that are arguments here: the name of the argument.
ARGUMENTS_ELSEWHERE = {
    "p": ("prompt",),
    "prompt": ("prompt",),
    "model": ("bundle", "bundles"),
    "m": ("bundle", "bundles"),
}


def panel(name: str) -> partial[Any]:
    """Returns `typer.Option` for the options of one panel of a command's help."""
    return partial(typer.Option, rich_help_panel=name)


def refuse_odd_values(command: typer.core.TyperCommand) -> None:
    """Lets every path and every name of a command be refused if it is empty, as an unset variable of the shell is.

    An empty path would be the current folder. An output that is `-` or has control characters is refused too. A file
    without permission is not wrong usage: the function that reads it says so.
    """
    for parameter in command.params:
        read = _READERS.get(parameter.type.name)
        if read is not None and parameter.name not in MAY_BE_EMPTY:
            parameter.type = copy(parameter.type)  # all texts have the same type
            setattr(parameter.type, "convert", partial(read, parameter.type.convert))  # noqa: B010
            setattr(parameter.type, "readable", False)  # noqa: B010  # what click would check


def _read_path(convert: Any, value: Any, parameter: Any, context: Any) -> Any:  # noqa: ANN401  # types of click
    if value == "":
        raise typer.BadParameter("the path is empty; give one (. is the current folder)")
    if parameter.name in WRITTEN and value == "-":
        raise typer.BadParameter("- is no file or folder, and nothing goes to standard output here; give a name")
    if parameter.name in WRITTEN and any(ord(sign) < 32 or 127 <= ord(sign) < 160 for sign in str(value)):
        raise typer.BadParameter(f"the path has control characters, which act on a terminal: {value!a}; choose another")
    return convert(value, parameter, context)


def _read_text(convert: Any, value: Any, parameter: Any, context: Any) -> Any:  # noqa: ANN401  # types of click
    if value == "":
        raise typer.BadParameter("the value is empty; give one")
    return convert(value, parameter, context)


# By the names of their types. A text is `text` in older versions of typer.
_READERS = {"path": _read_path, "str": _read_text, "text": _read_text}


def one_of(what: str, names: Sequence[str], help: str) -> dict[str, Any]:
    """Returns the arguments of `typer.Option` for an option that takes one name of several.

    Args:
        what: What the names are, for the message about another name.
        names: The choices, as help and completion show them.
        help: What the option is for. If the choices are many, they follow it.
    """

    def read(given: str) -> str:
        if given not in names:
            raise typer.BadParameter(unknown(what, given, names))
        return given

    short = len("|".join(names)) <= WIDEST
    return {
        "parser": read,
        "metavar": "|".join(names) if short else "NAME",
        "autocompletion": lambda incomplete: [name for name in names if name.startswith(incomplete)],
        "help": help if short else f"{help.removesuffix('.')}: {', '.join(names)}.",
    }


def some_of(what: str, names: Sequence[str], help: str) -> dict[str, Any]:
    """Returns the arguments of `typer.Option` for an option that takes names which commas separate.

    Args:
        what: What one of the names is, for the message about another name.
        names: The choices, which follow the help.
        help: What the option is for.
    """

    def read(given: str) -> str:
        for name in given.split(","):
            if name.strip() not in names:
                raise typer.BadParameter(unknown(what, name.strip(), names))
        return given

    return {
        "parser": read,
        "metavar": NAMES,
        "autocompletion": lambda incomplete: complete_last(names, incomplete),
        "help": f"{help.removesuffix('.')}: {', '.join(names)}.",
    }


def complete_last(names: Sequence[str], incomplete: str) -> list[str]:
    """Returns the ways to complete the last of several names that commas separate."""
    before, comma, last = incomplete.rpartition(",")
    taken = before.split(",")
    return [f"{before}{comma}{name}" for name in names if name.startswith(last) and name not in taken]


def usage_line(error: Exception) -> str:
    """Returns what is wrong with a command line, as one clause that begins with the option or argument.

    Args:
        error: An error of typer or of its click.
    """
    message = str(getattr(error, "message", None) or error).strip().rstrip(".")
    param, hint = getattr(error, "param", None), getattr(error, "param_hint", None)
    where = ""
    if param is not None:
        named = sorted(param.opts, key=len)[-1] if param.param_type_name == "option" else param.human_readable_name
        where = f"{named if named.startswith('-') else named.upper().removesuffix('...')}: "
    elif hint:
        where = f"{hint if isinstance(hint, str) else ' '.join(hint)}: "
    kind, option = type(error).__name__, getattr(error, "option_name", "")
    if kind == "MissingParameter":
        return f"{where.removesuffix(': ')} is missing"
    if kind == "NoSuchOption":
        return f"there is no option {option}{_option_here(error, option)}"
    if kind == "BadOptionUsage":
        return f"{option}: {'it needs a value' if 'requires' in message else 'it takes no value'}"
    if message.startswith("Got unexpected extra argument"):
        _, _, words = message.partition(" (")
        words = words.removesuffix(")")
        return f"these words are too many: {words}{_option_for(error, words)}"
    clause = message[:1].lower() + message[1:]
    return where + " ".join(clause.split())


def command_here(given: str, names: Iterable[str]) -> str:
    """Returns what follows the name of a command that there is not: what does the same here, or the nearest name."""
    told = COMMANDS_ELSEWHERE.get(given.casefold())
    return did_you_mean(given, names) if told is None else f": {told}"


def _option_for(error: Exception, words: str) -> str:
    """Returns a question that names the option which takes the words that are too many; nothing if there is none.

    Args:
        error: An error of typer or of its click.
        words: The words, with spaces between them.
    """
    context = getattr(error, "ctx", None)
    command = getattr(context, "command", None)
    option = WORDS_ELSEWHERE.get(getattr(command, "name", None) or "")
    for parameter in getattr(command, "params", ()):
        if option in parameter.opts and (parameter.multiple or not getattr(context, "params", {}).get(parameter.name)):
            return f" (did you mean {option}{'' if ' ' in words else f' {shlex.quote(words)}'}?)"
    return ""


def _option_here(error: Exception, option: str) -> str:
    """Returns what follows the name of an option that there is not: the same option here, or the nearest name."""
    command = getattr(getattr(error, "ctx", None), "command", None)
    parameters = list(getattr(command, "params", ()))
    known = [name for parameter in parameters for name in parameter.opts if name.startswith("--")]
    name = option.lstrip("-").replace("_", "-")
    for argument in parameters:
        if argument.name in ARGUMENTS_ELSEWHERE.get(name, ()) and argument.param_type_name == "argument":
            return f": give the {argument.name.removesuffix('s')} alone, without an option before it"
    for here in (f"--{name}", *OPTIONS_ELSEWHERE.get(name, ())):
        if here in known:
            return f" (did you mean {here}?)"
    # Without the dashes, which make every option look like another.
    return did_you_mean(name, [one.removeprefix("--") for one in known], "--{}".format)


def names_of(text: str) -> tuple[str, ...]:
    """Returns the names in a text that commas separate, without spaces around them."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
