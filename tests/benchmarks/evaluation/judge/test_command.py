"""`slmx evaluate --suite judge` from its options to its table, against a local endpoint."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("openai", reason="needs the package openai")

from tests.benchmarks.evaluation.judge.endpoints import KEY, MODEL, Server, serving
from tests.bundles import Slmx
from tests.error_lines import said

pytestmark = pytest.mark.slow


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def text(stories: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stories that are long enough for endings of 60 words."""
    path = tmp_path_factory.mktemp("text") / "stories.txt"
    long = [" ".join(stories[number : number + 2]).replace("\n", " ") for number in range(0, 12, 2)]
    path.write_text("\n<|endoftext|>\n".join(long), "utf-8")
    return path


def options(server: Server, text: Path) -> list[str | Path]:
    address = ["--judge-url", server.url, "--judge-model", MODEL]
    return ["evaluate", "nano", "--text", text, "--suite", "judge", "--count", "3", "--out", "found", *address]


def test_the_judge_scores_the_model_and_the_true_endings(
    server: Server, text: Path, slmx: Slmx, tmp_path: Path
) -> None:
    done = slmx(*options(server, text), "--yes", "--judge-price", "1,2")
    assert done.code == 0, done.stderr
    assert "6 requests, about" in done.stderr
    assert "at the given price" in done.stderr
    assert "| scored by | critic | critic | people |" in done.stdout
    assert len(server.requests) == 6
    found = json.loads((tmp_path / "found" / "evaluation.json").read_text("utf-8"))
    assert found["results"]["true stories"]["judge"]["grammar"]["value"] == 7
    assert "## Judge" in (tmp_path / "found" / "evaluation.md").read_text("utf-8")
    assert KEY not in "".join(path.read_text("utf-8") for path in (tmp_path / "found").iterdir())
    again = slmx(*options(server, text))  # nothing is left to ask, so --yes is not needed
    assert again.code == 0, again.stderr
    assert len(server.requests) == 6
    other = slmx(*options(server, text), "--judge-model", "other", "--yes")
    assert (other.code, other.stdout) == (1, "")
    assert "made with another model; give another --out" in other.stderr


def test_nobody_is_asked_without_a_yes(server: Server, text: Path, slmx: Slmx) -> None:
    done = slmx(*options(server, text))
    assert done.code == 2
    assert "6 requests, about" in done.stderr
    line = done.stderr.splitlines()[-1]
    assert said(line, 2) == "nothing was asked: add --yes, because there is no terminal to ask you on"
    assert server.requests == []


@pytest.mark.parametrize(("answer", "requests"), [("n", 0), ("y", 6)])
def test_a_terminal_is_asked_first(server: Server, text: Path, tmp_path: Path, answer: str, requests: int) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", "from slm.cli import main; main()", *map(str, options(server, text))]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path)
    os.close(theirs)
    shown = b""
    while process.poll() is None or select.select([ours], [], [], 0)[0]:
        if select.select([ours], [], [], 0.1)[0]:
            try:
                shown += os.read(ours, 4096)
            except OSError:
                break
        if b"Go on? [y/N]" in shown and answer:
            assert server.requests == []
            os.write(ours, f"{answer}\n".encode())
            answer = ""
    os.close(ours)
    assert answer == "", shown.decode("utf-8", "replace")
    assert process.wait() == (0 if requests else 1)
    assert len(server.requests) == requests


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--judge-url", "127.0.0.1:1"], "--judge-url 127.0.0.1:1: not an address such as http://127.0.0.1:8000/v1"),
        (["--judge-url", "http://[::1"], "not an address such as"),
        (["--judge-url", "http://me:word@host/v1"], "--judge-url: it holds a name or a password"),
        (["--judge-url", "http://host/v1/chat/completions"], "leave out /chat/completions"),
        (["--judge-model", "a\x1bb"], "--judge-model: not a name of printable characters"),
        (["--judge-price", "0.15"], "--judge-price 0.15: give two prices of a million tokens, such as 0.15,0.60"),
        (["--judge-price", "-1,nan"], "give two prices"),
    ],
)
def test_a_wrong_option_is_one_line(server: Server, text: Path, slmx: Slmx, more: list[str], said: str) -> None:
    assert said in slmx.refuses_unchanged(*options(server, text), *more, code=2)


@pytest.mark.parametrize("key", ["secret\n", " secret", "sécret"])
def test_a_key_that_cannot_be_sent_is_one_line(
    server: Server, text: Path, slmx: Slmx, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("OTHER_KEY", key)
    line = slmx.refuses_unchanged(*options(server, text), "--judge-key-env", "OTHER_KEY", code=2)
    assert line == "the key in OTHER_KEY has spaces around it or characters that no key has; set it again"


def test_what_the_suite_needs_is_said(text: Path, slmx: Slmx) -> None:
    start = ["evaluate", "nano", "--text", str(text), "--suite"]
    assert "the suite judge needs --judge-url URL and --judge-model NAME" in slmx(*start, "judge", "--out", "o").stderr
    address = ["--judge-url", "http://h/v1", "--judge-model", "m"]
    assert "the suite judge needs --out DIR" in slmx(*start, "judge", *address).stderr
    assert "are for --suite judge" in slmx(*start, "loss", *address).stderr
