"""The reference of the commands names arguments as `slmx COMMAND --help` does."""

from __future__ import annotations

import re

import pytest

from benchmarks.documents.command_reference import reference

USAGES = dict(re.findall(r"^    slmx (\w+) \[OPTIONS\] ?(.*)$", reference(), re.MULTILINE))


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("serve", "[BUNDLE...]"),
        ("web", "[BUNDLE...]"),
        ("pull", "OWNER/NAME[@REVISION]"),
        ("compare", "OLD NEW"),
        ("list", ""),
    ],
)
def test_an_argument_has_brackets_only_if_it_may_be_left_out(command: str, arguments: str) -> None:
    assert USAGES[command] == arguments


@pytest.mark.parametrize("command", USAGES)
def test_the_name_of_an_argument_is_in_capitals(command: str) -> None:
    assert USAGES[command] == USAGES[command].upper()
