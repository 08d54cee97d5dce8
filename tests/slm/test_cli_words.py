"""The first minute of a user: the greeting, the version, --help, wrong usage, and what the shell completes."""

from __future__ import annotations

import errno
import os
import re
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import pytest
import typer

from benchmarks.peers.registry import PEERS, RUNTIMES
from export.formats.recipes import DEFAULT_RECIPE, RECIPE_NAMES, RECIPES
from export.targets import TARGETS
from runtimes.bundle.location import SHIPPED_BUNDLES
from runtimes.bundle.variants import ONNX_VARIANTS
from slm import __version__
from slm.cli import COMMANDS, GREETING, GROUPS, LazyGroup
from slm.console.usage import COMMANDS_ELSEWHERE
from slm.presets import PRESETS
from tests.bundles import Slmx, with_torchscript
from tests.conftest import run_slmx
from tests.error_lines import said

# The options that are shown in panels of their own, and the most that a command may show in one panel.
MOST_IN_A_PANEL = 12
NARROW = {"COLUMNS": "80", "TERMINAL_WIDTH": "80"}


def panels(help_: str) -> dict[str, list[str]]:
    """The lines of each box of a help text, by its title."""
    found: dict[str, list[str]] = {}
    for line in help_.splitlines():
        if title := re.match(r"╭─ (.*?) ─", line):
            found[title[1]] = []
        elif line.startswith("│"):
            found[list(found)[-1]].append(line.strip("│ "))
    return found


def test_slmx_alone_greets_with_commands_that_exist(slmx: Slmx) -> None:
    ran = slmx()
    assert (ran.code, ran.stderr, ran.stdout) == (0, "", f"{GREETING}\n")
    named = re.findall(r"^  slmx (\S+)", ran.stdout, re.MULTILINE)
    assert named == ["generate", "train", "--help", "COMMAND"]
    assert len(ran.stdout.splitlines()) <= 8
    assert all(len(line) <= 79 for line in ran.stdout.splitlines())


def test_the_version_names_the_libraries(slmx: Slmx) -> None:
    ran = slmx("--version")
    lines = [f"slmx {__version__}", *(f"{name} {version(name)}" for name in ("onnxruntime", "torch"))]
    assert (ran.code, ran.stdout.splitlines()) == (0, lines)


def test_every_command_is_in_a_group_with_a_help_of_one_line(slmx: Slmx, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in NARROW.items():
        monkeypatch.setenv(name, value)
    shown = panels(slmx("--help").stdout)
    assert list(shown) == ["Options", *GROUPS.values()]
    rows = [row for group in GROUPS.values() for row in shown[group]]
    assert [row.split()[0] for row in rows] == list(COMMANDS), "a help that wraps makes a row of its own"
    assert all(row.endswith(".") for row in rows)


@pytest.mark.parametrize("command", COMMANDS)
def test_no_panel_is_a_novel_and_no_default_hides_in_a_sentence(slmx: Slmx, command: str) -> None:
    ran = slmx(command, "--help")
    assert ran.code == 0
    text = " ".join(ran.stdout.replace("│", " ").split())
    assert not re.search(r"[^\[][Dd]efault:", text)
    for title, lines in panels(ran.stdout).items():
        options = [line for line in lines if re.match(r"(\*\s+)?--", line)]
        assert len(options) <= MOST_IN_A_PANEL, title


@pytest.mark.parametrize("colour", [{}, {"NO_COLOR": "1"}, {"FORCE_COLOR": ""}])
def test_help_in_a_pipe_has_no_escapes_and_the_width_of_the_terminal(colour: dict[str, str], tmp_path: Path) -> None:
    ran = run_slmx("generate", "--help", cwd=tmp_path, env={"COLUMNS": "60", **colour})
    assert "\x1b" not in ran.stdout
    assert {len(line) for line in ran.stdout.splitlines() if line.startswith("│")} == {60}


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["genrate"], "unknown command 'genrate' (did you mean generate?)"),
        (["Once upon a time"], "unknown command 'Once upon a time'"),
        (["--nope"], "there is no option --nope"),
        (["generate", "--tok-k", "3"], "there is no option --tok-k (did you mean --top-k?)"),
        (["bench", "--bundle", "x"], "there is no option --bundle"),
        (["generate", "--top-k"], "--top-k: it needs a value"),
        (["generate", "--json=3"], "--json: it takes no value"),
        (["generate", "--count", "0"], "--count: 0 is not in the range 1<=x<=100000"),
        (["generate", "--top-k", "-1"], "top-k must be 0 (off) or more, not -1"),
        (["generate", "--on-full", "slid"], "--on-full: unknown choice 'slid' (did you mean slide?): "),
        (["run", "nano"], "unknown command 'run': slmx generate writes a story"),
        (["chat"], "unknown command 'chat': slmx generate -i writes"),
        (["generate", "--model", "nano"], "there is no option --model (did you mean --bundle?)"),
        (["generate", "-m", "nano"], "there is no option -m (did you mean --bundle?)"),
        (["generate", "-p", "Once"], "there is no option -p: give the prompt alone, without an option before it"),
        (["info", "--model", "nano"], "there is no option --model: give the bundle alone, without an option before it"),
        (["serve", "-m", "nano"], "there is no option -m: give the bundle alone"),
        (["train", "--model", "x"], "there is no option --model (did you mean --init?)"),
        *(
            (["generate", name, "9"], f"there is no option {name} (did you mean --max-tokens?)")
            for name in ("--max-new-tokens", "--max_new_tokens", "--n-predict", "--n_predict", "--max_tokens")
        ),
        (["generate", "-t", "4"], "there is no option -t (did you mean --threads?)"),
        (["generate", "--temp", "1"], "there is no option --temp (did you mean --temperature?)"),
        (["info", "a", "b", "c"], "these words are too many: b c"),
        (
            ["export", "runs/a(1)", "--int8"],
            "these words are too many: runs/a(1) (did you mean --checkpoint 'runs/a(1)'?)",
        ),
        (["train", "stories.txt"], "these words are too many: stories.txt (did you mean --text stories.txt?)"),
        (["export", "--checkpoint", "a", "b"], "these words are too many: b"),
        (["train", "a.txt", "b.txt"], "these words are too many: a.txt b.txt (did you mean --text?)"),
        (["rm"], "NAME is missing"),
        (["prepare", "--out", "x"], "SOURCE is missing"),
        (["serve", ""], "BUNDLE: the path is empty; "),
        (["train"], "--out is missing"),
        (
            ["web", "--variant", "int9"],
            "--variant: unknown variant for browsers 'int9' (did you mean int8?): choose one of int8, ",
        ),
    ],
)
def test_wrong_usage_is_one_plain_line(slmx: Slmx, args: list[str], line: str) -> None:
    ran = slmx(*args)
    assert (ran.code, ran.stdout) == (2, "")
    (told,) = ran.stderr.splitlines()
    assert said(told, 2).startswith(line)
    command = f"slmx {args[0]}" if args[0] in COMMANDS else "slmx"
    assert told.startswith(f"{command}: ")
    assert ("did you mean" in told) is ("did you mean" in line)


def test_a_number_that_is_none_is_one_plain_line(slmx: Slmx) -> None:
    told = slmx("generate", "--top-k", "x").stderr
    assert re.fullmatch(r"slmx generate: --top-k: 'x' is not a valid int\w*; see slmx generate --help\n", told)


def completed(words: str, cwd: Path) -> list[str]:
    """What bash shows for a command line, of which the last word is not complete."""
    count = len(words.split()) - (not words.endswith(" "))
    env = {"_SLMX_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(count)}
    ran = run_slmx(cwd=cwd, env=env)
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout.split("\n")[:-1]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("slmx ev", ["evaluate"]),
        ("slmx export --target pi", ["pi3", "pi4", "pi5"]),
        ("slmx export --target ", list(TARGETS)),
        ("slmx export --int8-recipe ", list(RECIPE_NAMES)),
        ("slmx train --preset m", ["micro", "medium", "medium-512"]),
        ("slmx train --arch ", ["gpt2", "llama"]),
        ("slmx train --optimizer ", ["muon", "adamw"]),
        ("slmx train --precision ", ["auto", "fp32", "bf16"]),
        ("slmx train --track t", ["tensorboard"]),
        ("slmx generate --on-full s", ["stop", "slide"]),
        ("slmx generate --bundle micro --variant ", ["int8"]),
        ("slmx bench --peers llama.cpp,o", ["llama.cpp,optimum", "llama.cpp,onnxruntime-genai"]),
        ("slmx bench --presets nano,", [f"nano,{name}" for name in PRESETS if name != "nano"]),
        ("slmx verify --runtimes ", ["optimum", "genai"]),
    ],
)
def test_the_shell_completes_choices(words: str, found: list[str], tmp_path: Path) -> None:
    assert completed(words, tmp_path) == found


def test_the_shell_completes_variants_of_the_default_bundle_and_says_nothing(tmp_path: Path) -> None:
    bundle = tmp_path / "bundles" / "nano"
    bundle.mkdir(parents=True)
    (bundle / "manifest.json").write_text("no manifest")
    assert completed("slmx generate --variant ", tmp_path) == [*ONNX_VARIANTS]
    assert os.listdir(tmp_path) == ["bundles"]


def test_the_shell_completes_the_variants_that_a_bundle_can_write_with(tmp_path: Path) -> None:
    folder = with_torchscript(SHIPPED_BUNDLES / "nano", tmp_path / "b")
    assert completed("slmx generate --bundle b --variant ", tmp_path) == ["int8"]
    Path(shutil.make_archive(str(folder), "zip", folder)).rename(tmp_path / "b.slmx")
    assert completed("slmx generate --bundle b.slmx --variant ", tmp_path) == ["int8"]


@pytest.mark.parametrize("given", [["--out", ""], ["--out="], ["--checkpoint", "", "--out", "b"]])
def test_an_empty_path_is_refused_instead_of_being_this_folder(slmx: Slmx, given: list[str], tmp_path: Path) -> None:
    line = slmx.refuses("export", *given, code=2)
    assert line == f"{given[0].rstrip('=')}: the path is empty; give one (. is the current folder)"
    assert not os.listdir()


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["rm", ""], "NAME"),
        (["import", "", "--out", "x"], "SOURCE"),
        (["pull", ""], "OWNER/NAME[@REVISION]"),
        (["push", "b", "o/n", "--revision="], "--revision"),
        (["prepare", "a", "", "--out", "x"], "SOURCE"),
        (["train", "--text", "", "--out", "x"], "--text"),
        (["train", "--text", "a", "--valid", "", "--out", "x"], "--valid"),
        (["evaluate", ""], "MODEL"),
        (["serve", "--host", ""], "--host"),
        (["serve", "--api-key-env", ""], "--api-key-env"),
        (["generate", "--stop", "", "Once"], "--stop"),
    ],
)
def test_an_empty_name_or_text_is_refused(slmx: Slmx, given: list[str], named: str) -> None:
    assert slmx.refuses(*given, code=2) == f"{named}: the value is empty; give one"
    assert not os.listdir()


def test_every_text_of_a_command_but_a_prompt_refuses_to_be_empty() -> None:
    for name in COMMANDS:
        command = LazyGroup().get_command(None, name)
        assert command is not None
        for parameter in command.params:
            if parameter.type.name in ("str", "text", "path") and parameter.name != "prompt":
                with pytest.raises(typer.BadParameter, match="is empty; give one"):
                    parameter.type.convert("", parameter, None)


def test_a_name_with_control_characters_does_not_reach_the_terminal(slmx: Slmx) -> None:
    line = slmx.refuses("export", "--out", "a\x1b[31mb", code=2)
    assert line == r"--out: the path has control characters, which act on a terminal: 'a\x1b[31mb'; choose another"
    assert slmx.refuses("info", "a\x1b[31mb").startswith(r"a\x1b[31mb: no bundle here")
    assert slmx.refuses("rm", "a\x1b[31mb\x9b").startswith(r"a\x1b[31mb\x9b: no such path")
    ran = slmx("info", "a\nb\u2028c")
    assert (ran.code, ran.stderr.count("\n")) == (1, 1)
    assert ran.stderr.startswith(r"slmx: a\nb\u2028c: no bundle here")


@pytest.mark.parametrize(
    ("name", "option"),
    [
        *((name, "--out") for name in ("generate", "web", "export", "import", "prepare", "train", "average", "pull")),
        *((name, "--out") for name in ("evaluate", "pack", "unpack", "keygen", "bench")),
        ("generate", "--save"),
        ("evaluate", "--rating-sheet"),
    ],
)
def test_no_file_or_folder_is_named_a_dash(slmx: Slmx, name: str, option: str) -> None:
    line = slmx.refuses(name, option, "-", code=2)
    assert line == f"{option}: - is no file or folder, and nothing goes to standard output here; give a name"
    assert not os.listdir()


@pytest.mark.parametrize("columns", ["0", "-3", "wide", "", "40", "9" * 5000])
def test_a_width_that_is_none_breaks_nothing(columns: str, tmp_path: Path) -> None:
    ran = run_slmx("list", "--help", cwd=tmp_path, env={"COLUMNS": columns})
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "--json" in ran.stdout


def test_what_others_call_a_command_is_not_the_name_of_one_here(slmx: Slmx) -> None:
    assert not set(COMMANDS_ELSEWHERE) & set(COMMANDS)
    named = [re.match(r"slmx (\S+)", told) for told in COMMANDS_ELSEWHERE.values()]
    assert {found[1] for found in named if found} <= {*COMMANDS, "--help", "--version"}


def test_help_names_what_the_registries_hold(slmx: Slmx) -> None:
    text = " ".join(slmx("bench", "--help").stdout.replace("│", " ").split())
    assert f"Runtimes: {', '.join(RUNTIMES)}; or none." in text
    assert {name.rpartition(" ")[0] or name for name in PEERS} == set(RUNTIMES)
    assert set(RECIPE_NAMES) < set(RECIPES)
    assert DEFAULT_RECIPE in RECIPE_NAMES


def test_whether_a_file_may_be_read_is_not_a_matter_of_usage(
    slmx: Slmx, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real = tmp_path / "p é.txt", Path.open

    def without_permission(self: Path, mode: str = "r") -> IO[Any]:
        if self == path:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(self, mode)

    path.write_text("Once")
    monkeypatch.setattr(os, "access", lambda where, *_, **__: Path(where) != path)
    monkeypatch.setattr(Path, "open", without_permission)
    line = slmx.refuses("generate", "--prompt-file", path, code=1)
    assert line == f"{path}: Permission denied; check its permissions"
