"""Every study is a command, and the pages call it with options that exist."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import typer

from slm.console.usage import ClickException
from tests.test_blocks import PAGES, shell_lines

ROOT = Path(__file__).resolve().parents[3]
STUDIES = sorted(
    path.stem for path in (ROOT / "benchmarks" / "studies").glob("*.py") if "__main__" in path.read_text("utf-8")
)
CALLS = [
    (call[1], call[2])
    for page in PAGES
    for line in shell_lines(page)
    if (call := re.match(r"python -m benchmarks\.studies\.(\w+) ?(.*)", line))
]


def problem(study: str, options: str) -> str | None:
    """Why a study does not take options; None if it does."""
    single = typer.Typer()
    single.command()(import_module(f"benchmarks.studies.{study}").main)
    command = typer.main.get_command(single)
    parser = command.make_parser(command.context_class(command, info_name=study))
    try:
        left = parser.parse_args(shlex.split(options))[1]
    except ClickException as error:
        return str(error)
    return f"{study} does not take {left}" if left else None


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_is_a_command(study: str) -> None:
    assert problem(study, "") is None
    assert problem(study, "--no-such-option") is not None


def test_the_pages_call_studies_with_options_that_exist() -> None:
    assert len(CALLS) > 4
    wrong = [(study, why) for study, options in CALLS if (why := problem(study, options)) is not None]
    assert wrong == []
