"""The exceptions that reach a user as a single line and an exit code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec

from slm.console.signals import signals_exit


class SlmxError(Exception):
    """An expected failure. Its message says what is wrong, where, and what to do next."""

    exit_code = 1


class UsageError(SlmxError):
    """Options or settings that no run can take: a value out of its range, or two that exclude each other."""

    exit_code = 2


class NeedsForceError(SlmxError):
    """A folder that slmx made is not replaced without --force. The command line adds the line to type."""


def did_you_mean(given: str, names: Iterable[str], shown: Callable[[str], object] = str) -> str:
    """Returns a question in brackets that names the choice nearest to what was given; nothing if none is near.

    Args:
        given: What was given.
        names: The choices.
        shown: Makes what the question says of a choice, such as its path.
    """
    from difflib import get_close_matches

    choices = {name.casefold(): name for name in names}
    near = get_close_matches(given.casefold(), choices, n=1)
    return f" (did you mean {shown(choices[near[0]])}?)" if near else ""


def unknown(what: str, given: str, names: Sequence[str]) -> str:
    """Returns the message for a name that is no choice: the nearest choice, if one is near, and all choices."""
    return f"unknown {what} {given[:80]!r}{did_you_mean(given, names)}: choose one of {', '.join(names)}"


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Guards imports: a missing package becomes the line that installs it, and a signal ends the process."""
    try:
        with signals_exit():
            yield
    except ModuleNotFoundError as error:
        from slm.console.install import install_line

        raise SlmxError(f"this command needs {error.name or error}: {install_line(extra)}") from error


def require(extra: str, *modules: str) -> None:
    """Checks that modules are installed which a command imports only after long work. None of them is imported here.

    matplotlib is told not to warn of a home folder that cannot be written, which no command needs.

    Args:
        extra: The extra of slmx that brings them.
        modules: Their names, without dots.

    Raises:
        SlmxError: One is missing. The message has the pip line that brings it.
    """
    with needs(extra):
        for name in modules:
            if find_spec(name) is None:
                raise ModuleNotFoundError(name=name)
    if "matplotlib" in modules:
        import logging

        logging.getLogger("matplotlib").setLevel(logging.ERROR)
