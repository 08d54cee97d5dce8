"""Where a prompt comes from: words, a pipe, a file. A command that waits for it says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtimes.generate.prompt_input import prompt_from
from runtimes.prompts_file.reader import LONGEST_LINE
from tests import bundles
from tests.bundles import Slmx
from tests.conftest import run_slmx

pytestmark = pytest.mark.slow

SEEDED = ("--seed", "3", "--max-tokens", "8")


@pytest.fixture(scope="module")
def bundle(tiny_checkpoint: Path) -> Path:
    return bundles.tiny_bundle(tiny_checkpoint)


def story(bundle: Path, cwd: Path, *args: str, input: str | None = None) -> str:
    ran = run_slmx("generate", *args, "--bundle", bundle, *SEEDED, cwd=cwd, input=input)
    assert ran.returncode == 0, ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    return ran.stdout


def test_a_pipe_is_the_prompt_if_there_is_no_other(bundle: Path, tmp_path: Path) -> None:
    asked = story(bundle, tmp_path, "One day")
    assert asked.startswith("One day")
    assert story(bundle, tmp_path, input="One day\n") == asked
    assert story(bundle, tmp_path, "-", input="One day\n") == asked
    assert story(bundle, tmp_path, "One", "day", input="Another prompt") == asked


def test_a_file_at_standard_input_is_the_prompt(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "é 1.txt"
    path.write_bytes(b"One day\r\n")
    with path.open() as opened:
        ran = subprocess.run(
            [sys.executable, "-m", "slm", "generate", "--bundle", str(bundle), *SEEDED],
            cwd=tmp_path,
            stdin=opened,
            capture_output=True,
            text=True,
            check=True,
        )
    assert ran.stdout == story(bundle, tmp_path, "One day")


def test_an_empty_pipe_and_dev_null_are_no_prompt(bundle: Path, tmp_path: Path) -> None:
    nothing = story(bundle, tmp_path, "")
    assert story(bundle, tmp_path, input="") == story(bundle, tmp_path, input="\n") == nothing
    command = [sys.executable, "-m", "slm", "generate", "--bundle", str(bundle), *SEEDED]
    ran = subprocess.run(command, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    assert ran.stdout == nothing


def test_a_pipe_that_does_not_end_is_named_and_read_to_its_end(bundle: Path, tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    command = [sys.executable, "-m", "slm", "generate", "--bundle", str(bundle), *SEEDED]
    with subprocess.Popen(
        command, cwd=tmp_path, stdin=ours, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        os.close(ours)
        os.write(theirs, b"One ")
        assert child.stderr is not None
        assert child.stderr.readline().startswith("reading the prompt from standard input; < /dev/null ")
        os.write(theirs, b"day")
        os.close(theirs)
        out, talk = child.communicate(timeout=60)
    assert out == story(bundle, tmp_path, "One day")
    assert len(talk.splitlines()) == 1


def test_a_pipe_that_is_not_text_is_one_line(bundle: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "slm", "generate", "--bundle", str(bundle)]
    ran = subprocess.run(command, cwd=tmp_path, input=b"caf\xe9", capture_output=True, check=False)
    assert (ran.returncode, ran.stdout) == (1, b"")
    assert ran.stderr == b"slmx: standard input: not UTF-8 text; convert it to UTF-8\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--prompt-file", "/dev/zero"], "/dev/zero: the prompt is longer than 1,048,576 bytes; shorten it"),
        ([], "standard input: the prompt is longer than 1,048,576 bytes; shorten it"),
        (["-i"], "standard input: a line is longer than 1,048,576 characters; shorten it"),
    ],
)
def test_of_an_input_without_an_end_only_a_part_is_read(
    slmx: Slmx, monkeypatch: pytest.MonkeyPatch, options: list[str], said: str
) -> None:
    if not Path("/dev/zero").exists():
        pytest.skip("this system has no /dev/zero")
    monkeypatch.setattr("runtimes.generate.prompt_input._is_piped", lambda: True)
    with Path("/dev/zero").open() as endless:
        monkeypatch.setattr("sys.stdin", endless)
        ran = slmx("generate", *options)
    assert (ran.code, ran.stdout.strip()) == (1, "")
    assert ran.stderr.splitlines()[-1] == f"slmx: {said}"


def test_the_longest_prompt_may_end_with_a_line_break(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_bytes(b"a" * LONGEST_LINE + b"\r\n")
    assert prompt_from([], path) == "a" * LONGEST_LINE


def test_in_turns_a_pipe_holds_the_turns(bundle: Path, tmp_path: Path) -> None:
    ran = run_slmx("generate", "-i", "--bundle", bundle, *SEEDED, cwd=tmp_path, input="The dog\n/quit\n")
    assert ran.returncode == 0
    assert ran.stdout.startswith("The dog")
    assert "> " not in ran.stderr, "the sign is for a terminal"
