"""The exception that the command line reports as a single line with exit code 1."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class SlmxError(Exception):
    """An expected failure. Its message says what is wrong, where, and what to do next."""


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Turns the error of a missing package, inside the block, into one that gives the pip command to install it.

    Args:
        extra: The optional dependencies of slmx that contain the package.

    Raises:
        SlmxError: A package is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise SlmxError(f'this command needs {error.name}: pip install "slmx[{extra}]"') from error
