"""`make story` ends with lines that can be typed as they are, and the workflows of GitHub agree with make and CI."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_story_ends_with_lines_that_run_in_this_shell(tmp_path: Path) -> None:
    here = tmp_path / "é 1"
    bin_ = here / ".venv" / "bin"
    bin_.mkdir(parents=True)
    slmx = bin_ / "slmx"
    slmx.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m slm "$@"\n')
    slmx.chmod(0o755)
    shutil.copy(ROOT / "Makefile", here)
    ready = ("-o", ".venv/export", "-o", "bundles/nano/manifest.json")  # the environment and the bundle are there

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8"}
        return subprocess.run(command, cwd=here, env=env, capture_output=True, text=True, input="/quit\n", timeout=120)

    made = run("make", "--silent", *ready, "story")
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("Once upon a time")
    *_, said, story, turns, help_ = made.stderr.splitlines()
    assert said == "Next you can type:"
    for line in (story, turns, help_):
        assert line.startswith("  .venv/bin/slmx ")
        ran = run("sh", "-c", line)
        assert (ran.returncode, ran.stdout != "") == (0, True)


def test_the_workflows_have_the_commands_of_the_makefile_and_of_ci() -> None:
    makefile, ci = (ROOT / "Makefile").read_text("utf-8"), (ROOT / ".ci" / "run").read_text("utf-8")
    workflows = ROOT / ".github" / "workflows"
    tests, release = ((workflows / f"{name}.yml").read_text("utf-8") for name in ("tests", "release"))
    for words, one, other in (
        (r'-m "not heavy[^"]*"', makefile, tests),
        (r"torch==[\d.]+", makefile, tests),
        (r"--require-hashes --no-deps --requirement \S+", ci, release),
        (r"\.ci/release\.py", ci, release),
    ):
        assert set(re.findall(words, one)) == set(re.findall(words, other)) != set()
