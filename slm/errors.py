"""The exceptions that reach a user as a single line and an exit code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from slm.signals import signals_exit


class SlmxError(Exception):
    """An expected failure. Its message says what is wrong, where, and what to do next."""

    exit_code = 1


class UsageError(SlmxError):
    """Options or settings that no run can take: a value out of its range, or two that exclude each other."""

    exit_code = 2


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Within it, modules are imported: a missing package becomes the pip line that brings it, and a signal exits."""
    try:
        with signals_exit():
            yield
    except ModuleNotFoundError as error:
        from slm.install import pip_line

        raise SlmxError(f"this command needs {error.name or error}: {pip_line(extra)}") from error
