"""The one exception that reaches a user as a single line and exit code 1."""

from __future__ import annotations


class SlmxError(Exception):
    """A foreseeable failure: its message says what is wrong, where, and what to do next."""
