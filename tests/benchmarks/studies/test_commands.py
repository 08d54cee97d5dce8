"""Every study is a command, the pages call it with options that exist, and all write results in one form."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import typer

from benchmarks.program import command_line, run
from benchmarks.studies import browser, quantization, uses
from benchmarks.studies.figures import at_most
from benchmarks.studies.results import Out, Presets, write_results
from slm.console.errors import SlmxError
from slm.console.usage import ClickException
from tests.test_blocks import PAGES, shell_lines

ROOT = Path(__file__).resolve().parents[3]
STUDIES = sorted(
    path.stem for path in (ROOT / "benchmarks" / "studies").glob("*.py") if "__main__" in path.read_text("utf-8")
)
RECORDS = [
    json.loads(path.read_bytes()) for path in sorted((ROOT / "docs").glob("*.json")) if path.name != "benchmarks.json"
]
CALLS = [
    (call[1], call[2])
    for line in [
        *(line for page in PAGES for line in shell_lines(page)),
        *(record["command"] for record in RECORDS if "command" in record),
    ]
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


@pytest.mark.parametrize("study", [study for study in STUDIES if study not in ("quantization_reader", "stories")])
def test_a_study_writes_its_results_where_out_says(study: str) -> None:
    assert problem(study, "--out results.json") is None


def test_the_pages_and_the_results_call_studies_with_options_that_exist() -> None:
    assert len(CALLS) > 8
    wrong = [(study, why) for study, options in CALLS if (why := problem(study, options)) is not None]
    assert wrong == []


def fake_study(preset: Presets = None, out: Out = None) -> None:
    """A study that measures nothing."""
    write_results(out, {"preset": preset}, {"rates": [1.5]}, [at_most("time", 2.0, 1.0, "{:.0f} s")], {"peer": "1.2"})


def test_results_have_their_command_and_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "results.json"
    monkeypatch.setattr(sys, "argv", [str(uses.__file__), "--preset", "nano", "--out", str(out)])
    with pytest.raises(SystemExit) as exit_:
        run(fake_study)
    assert exit_.value.code == 0
    record = json.loads(out.read_text("utf-8"))
    assert record["command"] == f"python -m benchmarks.studies.uses --preset nano --out {out}" == command_line()
    assert record["machine"]["peer"] == "1.2"
    assert "cpu" in record["machine"]
    assert record["settings"] == {"preset": ["nano"]}
    assert record["figures"] == [{"name": "time", "value": "2 s", "goal": "<= 1 s", "reached": False}]
    assert record["results"] == {"rates": [1.5]}


@pytest.mark.parametrize(
    ("study", "options", "message"),
    [
        ("uses", ("--preset", "nono"), "unknown preset 'nono'"),
        ("uses", ("--out", "no/results.json"), "its folder does not exist"),
        ("uses", ("--out", "."), "a folder; name a file in it"),
        ("stories", ("--out", ".", "nano"), "a folder; name a file in it"),
        ("quantization", ("--text", "a.txt", "--reader", "a 'b"), "not a command (No closing quotation)"),
        ("serving", ("--llama-server", "server"), "--llama-server and --llama-python need --gguf FILE"),
        ("serving", ("--llama-python", "python"), "--llama-server and --llama-python need --gguf FILE"),
        ("serving", ("--gguf", "a.gguf"), "add --llama-server, --llama-python or both"),
    ],
)
def test_wrong_options_are_one_line_before_anything_is_measured(
    study: str,
    options: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    module = import_module(f"benchmarks.studies.{study}")
    monkeypatch.setattr(sys, "argv", [str(module.__file__), *options])
    with pytest.raises(SystemExit) as exit_:
        run(module.main)
    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"benchmarks.studies.{study}: ")
    assert message in line


def test_an_error_of_the_system_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(out: Path) -> None:
        (out / "results.json").write_text("{}")

    monkeypatch.setattr(sys, "argv", [str(uses.__file__), str(tmp_path / "no\nsuch folder")])
    with pytest.raises(SystemExit) as exit_:
        run(full)
    assert exit_.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"benchmarks.studies.uses: {tmp_path}/no\\nsuch folder/results.json: No such file or directory"
    )


def test_results_that_were_there_stay_if_new_ones_cannot_be_written(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    write_results(out, {}, {"rates": [1.5]})
    before = out.read_bytes()
    with pytest.raises(TypeError):
        write_results(out, {}, {"rates": [object()]})
    assert out.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


STARTS = """
import subprocess, sys, tempfile, time
from benchmarks.program import run
def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        try:
            print(folder, process.pid, flush=True)
            time.sleep(60)
        finally:
            process.terminate()
            process.wait()
run(main)
"""


def test_sigterm_ends_what_a_command_has_started() -> None:
    with subprocess.Popen([sys.executable, "-c", STARTS], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        folder, process = program.stdout.readline().split()
        program.terminate()
        assert program.wait(30) == 128 + signal.SIGTERM
    assert not Path(folder).exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int(process), 0)


def test_a_browser_study_without_playwright_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "playwright", None)
    monkeypatch.setitem(sys.modules, "playwright.sync_api", None)
    with pytest.raises(SlmxError, match=r"this command needs playwright.*\[dev\]"):
        browser.main()


@pytest.mark.parametrize("answer", ["", "no figures"])
def test_a_reader_that_prints_no_figures_is_named(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization, "prepare", lambda *_: None)
    monkeypatch.setattr(quantization, "output_of", lambda *_, **__: answer)
    with pytest.raises(SlmxError, match="--reader echo: it printed no figures; name a command that starts Python"):
        quantization.main(Path("stories.txt"), reader="echo")


@pytest.mark.parametrize(
    ("reader", "expected"), [(None, ["/my programs/python"]), ("qemu -L ROOT python", ["qemu", "-L", "ROOT", "python"])]
)
def test_the_reader_is_this_python_also_in_a_folder_with_a_space(
    reader: str | None, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def answer(command: list[str], doing: str, shows_errors: bool) -> str:
        commands.append(command)
        return '{"models": {}}'

    monkeypatch.setattr(quantization, "prepare", lambda *_: None)
    monkeypatch.setattr(quantization, "output_of", answer)
    monkeypatch.setattr("sys.executable", "/my programs/python")
    quantization.main(Path("stories.txt"), reader=reader)
    assert commands[0][: commands[0].index("-m")] == expected
