"""The line of a command that failed."""

from __future__ import annotations

import re

WRONG_USAGE = re.compile(r"slmx(?P<command>( [a-z]+)?): (?P<said>.*); see slmx(?P=command) --help")


def said(line: str, code: int) -> str:
    """What the line of an error says. That of wrong usage, exit code 2, names the command and its --help."""
    if code == 2:
        found = WRONG_USAGE.fullmatch(line)
        assert found, line
        return found["said"]
    assert line.startswith("slmx: "), line
    return line.removeprefix("slmx: ")
