"""On a terminal a story has colour and a rate; in a pipe it is plain text."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from tests.conftest import run_slmx

pytestmark = pytest.mark.slow

LONG = ("--on-full", "slide", "--min-tokens", "100000", "--max-tokens", "100000")
COMMAND = (sys.executable, "-c", "from slm.cli import main; main()", "generate", "Once upon a time", "--seed", "1")


def on_terminal(
    *args: str, cwd: Path, env: dict[str, str], seconds: float | None = None, typed: bytes = b""
) -> tuple[bytes, int]:
    """What a command writes to a terminal, and its exit code; the terminal closes after `seconds`."""
    ours, theirs = pty.openpty()
    os.write(ours, typed)
    os.set_blocking(ours, False)
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {**os.environ, "TERM": "xterm", "OMP_NUM_THREADS": "1", **env}
    with subprocess.Popen(
        [*COMMAND, *args], cwd=cwd, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    ) as child:
        os.close(theirs)
        seen, until = b"", time.monotonic() + (60 if seconds is None else seconds)
        while time.monotonic() < until:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    seen += os.read(ours, 65536)
                except OSError:  # the other side is closed
                    break
        os.close(ours)
        return seen, child.wait(timeout=60)


def test_a_pipe_gets_plain_text(tmp_path: Path) -> None:
    ran = run_slmx("generate", "Once upon a time", "--seed", "1", cwd=tmp_path)
    assert ran.returncode == 0
    assert "\x1b" not in ran.stdout + ran.stderr


@pytest.mark.parametrize(
    ("env", "prompt"), [({}, b"\x1b[1mOnce"), ({"NO_COLOR": "1"}, b"Once"), ({"TERM": "dumb"}, b"Once")]
)
def test_a_terminal_gets_a_bold_prompt(tmp_path: Path, env: dict[str, str], prompt: bytes) -> None:
    seen, code = on_terminal(cwd=tmp_path, env=env)
    assert code == 0
    assert seen.startswith(prompt)
    assert b"tokens/s" in seen


@pytest.mark.heavy
def test_a_long_story_shows_its_rate_and_a_terminal_that_closes_ends_it(tmp_path: Path) -> None:
    seen, code = on_terminal(*LONG, cwd=tmp_path, env={}, seconds=4)
    assert seen.count(b" tokens/s\x1b[0m\x1b8") > 3
    assert code not in (0, None)
    assert b"Traceback" not in seen


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("args", [(), ("-n", "2")])
def test_the_error_of_a_copy_begins_a_line_of_its_own(tmp_path: Path, args: tuple[str, ...]) -> None:
    plain = {"NO_COLOR": "1", "TERM": "dumb"}
    seen, code = on_terminal("--max-tokens", "5", "--save", "/dev/full", *args, cwd=tmp_path, env=plain)
    assert code == 1
    assert b"\r\nslmx: /dev/full: cannot write" in seen


@pytest.mark.parametrize("args", [(), ("-n", "2")])
def test_lines_break_between_words(tmp_path: Path, args: tuple[str, ...]) -> None:
    plain = {"NO_COLOR": "1", "TERM": "dumb"}
    seen, code = on_terminal(*args, cwd=tmp_path, env={**plain, "COLUMNS": "30"})
    assert code == 0
    piped = run_slmx(*COMMAND[3:], *args, cwd=tmp_path).stdout
    *lines, _figures = seen.decode().split("\r\n")[:-1]
    assert " ".join(lines).split() == piped.split(), "no word is cut"
    assert max(map(len, lines)) <= 30
    assert sum(len(line) > 20 for line in lines) > len(lines) / 2


def test_a_story_in_turns_asks_with_a_sign_and_names_its_keys(tmp_path: Path) -> None:
    seen, code = on_terminal("-i", "--max-tokens", "4", cwd=tmp_path, env={"TERM": "dumb"}, typed=b"The dog\n/quit\n")
    assert code == 0
    talk = seen.decode()
    assert "Ctrl-C stops the model; at the prompt, Ctrl-C, Ctrl-D and /quit end the story\r\n" in talk
    assert talk.count("> ") == 2


def test_the_figures_do_not_go_to_stdout_if_stderr_is_closed(tmp_path: Path) -> None:
    command = [*COMMAND, "--max-tokens", "5", "--temperature", "0"]
    plain = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True, timeout=60)
    closed = ["sh", "-c", 'exec "$@" 2>&-', "sh", *command]
    assert subprocess.run(closed, cwd=tmp_path, stdout=subprocess.PIPE, check=True, timeout=60).stdout == plain.stdout


def test_a_closed_stdout_is_one_line(tmp_path: Path) -> None:
    ran = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *COMMAND],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (1, "slmx: standard output is closed: send it to a file, or to /dev/null\n")
