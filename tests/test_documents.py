"""README.md and docs/: commands exist, Python runs, links lead somewhere, and generated parts are fresh."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from slm.cli import COMMANDS, app
from slm.examples import EXAMPLES
from slm.usage import ClickException

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
PAGES = [*(page for page in PAGES if page.is_file()), *sorted((ROOT / "docs").glob("*.md"))]
GENERATED = ("README.md", "docs/commands.md")
MOST_LINES = 150


def code_lines(page: Path) -> list[str]:
    """The lines of indented and fenced blocks, each with the lines that a backslash joins to it."""
    lines: list[str] = []
    fenced = False
    for line in page.read_text("utf-8").splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            if lines and lines[-1].endswith("\\"):
                lines[-1] = lines[-1][:-1] + line.strip()
            else:
                lines.append(line.strip())
    return lines


def commands(page: Path) -> list[str]:
    """The calls of slmx in a page, without what comes before them in a line and without redirections."""
    found = []
    for line in code_lines(page):
        for part in re.split(r" && | \| |; ", line.split("  #")[0].removeprefix("$ ")):
            match = re.match(r"(?:[A-Z_]+=\S* |timeout [^|]*? (?=slmx)|echo .*?\| )*(?:\S*/)?slmx (.*)", part)
            if match and "[OPTIONS]" not in match[1]:
                found.append(re.sub(r"\s[0-9]?>+\s*\S+|\s<\s*\S+|\s&$", "", match[1]))
    return found


def problem(line: str) -> str | None:
    """Why a call of slmx is not one; None if its command and its options exist."""
    words = shlex.split(line)
    group: Any = typer.main.get_command(app)
    if words[0].startswith("-"):
        return None
    if words[0] not in COMMANDS:
        return "" if words[0].isupper() else f"no command {words[0]}"
    command = group.get_command(None, words[0])
    context = command.context_class(command, info_name=words[0])
    try:
        _, left, _ = command.make_parser(context).parse_args(words[1:])
    except ClickException as error:
        return str(error)
    return f"slmx {words[0]} does not take {' '.join(left)}" if left else None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_exists(page: Path) -> None:
    found = [(line, problem(line)) for line in commands(page)]
    assert [f"{line}: {why}" for line, why in found if why] == []


def test_commands_are_found() -> None:
    assert sum(len(commands(page)) for page in PAGES) > 150
    assert "No such option: --no-such-option" in str(problem("generate --no-such-option"))
    assert problem("keygen mine") == "slmx keygen does not take mine"
    assert problem("no-such-command") == "no command no-such-command"


def test_each_command_has_two_examples_that_exist() -> None:
    assert set(EXAMPLES) == set(COMMANDS)
    assert all(len(lines) == 2 for lines in EXAMPLES.values())
    calls = [line.split(" | ")[0].removeprefix("slmx ") for lines in EXAMPLES.values() for line in lines]
    assert [why for call in calls if (why := problem(call))] == []


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and mkdocs make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    text = page.read_text("utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"", text)
    wrong = []
    for link in (one or other for one, other in links):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    assert wrong == []


def test_every_page_is_in_the_list_of_the_site() -> None:
    listed = set(re.findall(r"[\w-]+\.md", (ROOT / "mkdocs.yml").read_text("utf-8")))
    assert listed == {page.name for page in (ROOT / "docs").glob("*.md")}


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= MOST_LINES


def test_the_python_of_readme_runs(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    (block,) = re.findall(r"^    from runtimes import load\n(?:    .*\n|\n(?=    ))*", text, re.MULTILINE)
    code = "\n".join(line[4:] for line in block.splitlines())
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout.count("Once upon a time") >= 9


def test_the_generated_parts_are_fresh() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "cogapp", "--check", *GENERATED], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, f"run: cog -r {' '.join(GENERATED)}\n{ran.stdout}{ran.stderr}"
