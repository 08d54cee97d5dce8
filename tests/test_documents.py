"""README.md and docs/: commands exist, links lead somewhere, generated parts are fresh. test_blocks.py runs blocks."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from benchmarks.report.printers import to_markdown
from benchmarks.report.reader import read_report
from runtimes.bundle.location import SHIPPED_BUNDLES
from slm.cli import COMMANDS, app
from slm.console.examples import EXAMPLES
from slm.console.usage import ClickException

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
PAGES = [*(page for page in PAGES if page.is_file()), *sorted((ROOT / "docs").glob("*.md"))]
NOTEBOOK = ROOT / "docs" / "story_model.ipynb"
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


def test_the_generated_parts_are_fresh() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "cogapp", "--check", *GENERATED], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, f"run: cog -r {' '.join(GENERATED)}\n{ran.stdout}{ran.stderr}"


def test_the_page_of_the_report_is_that_of_its_samples() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text("utf-8").splitlines()
    lines = to_markdown(read_report(ROOT / "docs" / "benchmarks.json"), {}, "").splitlines()
    assert len(lines) > 500
    assert [line for line in lines if line not in page] == [], "run python -m benchmarks.report.write_docs"


def test_the_sizes_in_readme_are_those_of_the_files() -> None:
    bundle = sum(path.stat().st_size for path in (SHIPPED_BUNDLES / "nano").rglob("*") if path.is_file())
    assert f"nano model ({bundle / 1e6:.0f} MB)" in (ROOT / "README.md").read_text("utf-8")


def cells_of_the_script() -> list[tuple[str, str]]:
    """The cells of docs/story_model.py: their kind and their text."""
    text = NOTEBOOK.with_suffix(".py").read_text("utf-8")
    cells = []
    for kind, body in re.findall(r"^# %%( \[markdown\])?\n(.*?)(?=^# %%|\Z)", text, re.MULTILINE | re.DOTALL):
        prose = "\n".join(line.removeprefix("#").removeprefix(" ") for line in body.strip().splitlines())
        cells.append(("markdown", prose) if kind else ("code", body.strip()))
    return cells


def test_the_notebook_is_that_of_the_script_and_was_run_whole() -> None:
    text = NOTEBOOK.read_text("utf-8")
    cells = json.loads(text)["cells"]
    assert [(cell["cell_type"], "".join(cell["source"])) for cell in cells] == cells_of_the_script(), "make notebook"
    assert len(text.encode("utf-8")) < 300_000
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    shown = "".join("".join(output.get("text", [])) for output in outputs)
    assert "step 900/900" in shown
    assert "speed of PyTorch" in shown
    assert not re.search(r"tokens/s|/(tmp|home|root|work|Users)/|\x1b", shown)
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
