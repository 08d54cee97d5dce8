"""The one exception that reaches a user as a single line and exit code 1."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class SlmxError(Exception):
    """A foreseeable failure: its message says what is wrong, where, and what to do next."""


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Turn a missing package into the pip line that brings it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise SlmxError(f'this command needs {error.name}: pip install "slmx[{extra}]"') from error
