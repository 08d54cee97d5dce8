"""The commands and the Python in README.md and docs/ run, in the order of the pages, in a folder with small files.

`NOT_RUN` lists what does not run here, with the reason.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from slm.checkpoint import load_checkpoint
from slm.folder_kind import PRETRAINED
from tests import bundles
from tests.bundles import Slmx
from tests.runtimes.serve.processes import slmx_serve
from tests.test_documents import PAGES as ALL_PAGES
from tests.test_documents import ROOT, code_lines

# How a command begins, after sudo, timeout and settings of variables.
COMMAND = re.compile(
    r"^(?:sudo |timeout [^|]*? (?=slmx)|[A-Z_]+=\S+ )*(?:\S*/)?"
    r"(?:apt-get|build\.sh|cat|cog|cp|curl|echo|exec|export(?= \w+=)|gh|hf|make|model_signing|nginx|openssl|parallel"
    r"|pip|pip-audit|pip-compile|pipx|podman|python3?|scp|slmx|ssh|systemctl|uv)(?= |$)"
)
# docs/commands.md is made of the program itself; test_documents.py reads its examples.
PAGES = [page for page in ALL_PAGES if page.name != "commands.md"]
NETWORK = "needs a network"
TRAINING = "minutes of training; .ci/run runs the block of docs/training.md"
WHOLE_MODEL = "a minute for the whole nano; tests/export runs it with a small model"
TEXTS = "needs a text or a model that is not in the repository"
MEASURES = "measures, for seconds to hours"
SERVES = "runs until Ctrl-C"
ELSEWHERE = "for another machine, or for root"
HOUSE = "a check of the repository itself, not of a user's folder"
NOT_RUN = {
    r"-m venv|\b(pip|uv|pipx|hf|podman|apt-get|pip-audit|pip-compile|gh)\b": NETWORK,
    r"OWNER/NAME|roneneldan/|api\.openai\.com|OPENAI_API_KEY|127\.0\.0\.1:8177": NETWORK,
    r"slmx train|make train-|runs/nano-int[48]|runs/fairytales": TRAINING,
    r"slmx export --preset|bundles/(everything|web|nano-int[48])|--target pi4|--runtimes|--variant all": WHOLE_MODEL,
    r"slmx import|checkpoints/|bundles/(tinystories-33m|stories15m|smollm2|my-model)": TEXTS,
    r"--suite loss,pairs": "the context of the small model is too short; tests/benchmarks/evaluation runs the pairs",
    r"fairytales|\.gguf|rater1|tinystories-train": TEXTS,
    r"slmx (bench|compare|doctor)|benchmarks\.|--against micro": MEASURES,
    r"slmx serve|--serve|http\.server|SLMX_API_KEY|SBATCH|SLURM": SERVES,
    r"model_signing|slmx verify signed": "needs model-signing; make sign-interop tries it",
    r"^(sudo|scp|ssh|systemctl|\./build\.sh)|~/slmx|ADDRESS": ELSEWHERE,
    r"^(make|cog)\b|\.ci/|tests\.reliability|-m build": HOUSE,
    r"^parallel|^cat part-": "needs GNU parallel; tests/runtimes/prompts_file runs shards",
    r"^curl": "test_the_server_answers_the_commands_of_its_page runs it",
}
PYTHON_NOT_RUN = {"import ray": "needs ray", "from openai": "test_the_server_answers_the_commands_of_its_page runs it"}


def shell_lines(page: Path) -> list[str]:
    """The lines of a page that are commands, without what explains them."""
    lines = (re.split(r"\s+# ", line)[0].removeprefix("$ ") for line in code_lines(page))
    return [line for line in lines if COMMAND.match(line)]


def why_not(line: str) -> str | None:
    """Why a command does not run here."""
    return next((reason for pattern, reason in NOT_RUN.items() if re.search(pattern, line)), None)


def python_blocks(page: Path) -> Iterator[str]:
    """The blocks of a page that are Python and import something."""
    text = page.read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    blocks += re.findall(r"(?:^    .*\n(?:\n+(?=    ))?)+", text, re.MULTILINE)
    for block in map(textwrap.dedent, blocks):
        if re.search(r"^(import|from) ", block, re.MULTILINE):
            ast.parse(block)
            yield block


PYTHON = [(page, block) for page in PAGES for block in python_blocks(page)]


def test_every_reason_is_that_of_a_line() -> None:
    lines = [line for page in PAGES for line in shell_lines(page)]
    assert len(lines) > 150
    for pattern in NOT_RUN:
        assert any(re.search(pattern, line) for line in lines), pattern
    assert [start for start in PYTHON_NOT_RUN if not any(start in block for _, block in PYTHON)] == []


def test_every_target_of_make_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    pages = [*PAGES, *(ROOT / ".github").rglob("*.md")]
    scripts = [ROOT / ".ci" / "run", ROOT / ".pre-commit-config.yaml", *(ROOT / ".github").rglob("*.yml")]
    named = {
        name for page in pages for name in re.findall(r"(?:`|^ {4,}|&& )make ([\w-]+)", page.read_text("utf-8"), re.M)
    }
    named |= {name for script in scripts for name in re.findall(r"\bmake ([\w-]+)", script.read_text("utf-8"))}
    assert len(named) > 12
    assert named <= targets


@pytest.fixture
def folder(slmx: Slmx, tiny_checkpoint: Path, tmp_path: Path, stories: list[str]) -> Path:
    """The working folder: what the pages take for given, as small as it can be."""
    text = "\n\n".join(" ".join(story.split()) for story in stories)
    for name in ("stories.txt", "tinystories-valid.txt"):
        (tmp_path / name).write_text(text, "utf-8")
    (tmp_path / "prompts.txt").write_text("Once upon a time\nOne day\n", "utf-8")
    for name in ("mine", "stories"):
        shutil.copytree(tiny_checkpoint, tmp_path / "runs" / name / "best")
    bundles.copy_of(bundles.tiny_bundle(tiny_checkpoint), tmp_path / "bundles" / "nano")
    return tmp_path


@pytest.mark.slow
def test_the_commands_of_the_pages_run(slmx: Slmx, folder: Path) -> None:
    ran: dict[str, str] = {}
    for page in PAGES:
        for line in shell_lines(page):
            if line in ran or why_not(line) is not None:
                continue
            ran[line] = page.name
            plain = line.startswith("slmx ") and not re.search(r"[|<>&;]| -i\b", line)
            with bundles.brief_checks():
                done = slmx(*shlex.split(line)[1:]) if plain else in_a_shell(line, folder)
            assert done.code == 0, f"{page.name}: {line}\n{done.stdout}{done.stderr}"
    assert len(ran) > 20, ran


def in_a_shell(line: str, folder: Path) -> bundles.Ran:
    """Runs a line as a person types it, with an end of the turns for `slmx generate -i`."""
    slmx = f'slmx() {{ {shlex.quote(sys.executable)} -m slm "$@"; }}\n'
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", slmx + line], cwd=folder, env=env, input="/quit\n", capture_output=True, text=True, timeout=120
    )
    return bundles.Ran(done.returncode, done.stdout, done.stderr)


@pytest.mark.slow
def test_the_python_of_the_pages_runs(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from export.formats.torch_files import export_torchscript

    (folder / "bundles" / "everything" / "torchscript").mkdir(parents=True)
    export_torchscript(load_checkpoint(PRETRAINED / "nano").model, folder / "bundles/everything/torchscript/model.ts")
    ran = 0
    for page, block in PYTHON:
        if not any(start in block for start in PYTHON_NOT_RUN):
            with bundles.brief_checks():
                exec(compile(block, page.name, "exec"), {"__name__": "__main__"})
            ran += 1
    assert ran >= 5
    assert capfd.readouterr().out.count("Once upon a time") >= 10


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_server_answers_the_commands_of_its_page(tmp_path: Path) -> None:
    page = ROOT / "docs" / "server.md"
    curls = [line for line in shell_lines(page) if line.startswith("curl ") and "ADDRESS" not in line]
    (block,) = [block for where, block in PYTHON if where == page and "from openai" in block]
    assert len(curls) >= 4
    with slmx_serve(tmp_path) as server:
        for line in curls:
            asked = line.replace("curl ", "curl --silent --show-error --fail ").replace(
                "http://127.0.0.1:8000", server.url
            )
            done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, f"{line}\n{done.stderr}"
            assert done.stdout.startswith(("{", "data: {")), line
        pytest.importorskip("openai")
        code = block.replace("http://127.0.0.1:8000", server.url)
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
        assert len(told.stdout) > 50
