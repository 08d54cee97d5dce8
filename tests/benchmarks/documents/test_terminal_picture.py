"""The picture of README.md: what a terminal shows, as SVG without a file of another host."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_the_pictures_hold_the_story_and_its_colours(tmp_path: Path) -> None:
    out = tmp_path / "terminal"
    command = [sys.executable, "-m", "benchmarks.documents.terminal_picture", "--out", str(out)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=tmp_path, env=env, check=True, capture_output=True, timeout=120)
    pictures = [(tmp_path / f"terminal-{theme}.svg").read_text("utf-8") for theme in ("light", "dark")]
    assert pictures[0] != pictures[1]
    for picture in pictures:
        shown = re.sub(r"<[^>]+>", " ", picture).replace("&#160;", " ")
        assert "Once upon a time" in shown
        assert "slmx generate" in shown
        assert "tokens/s" in shown
        assert set(re.findall(r"https?://[^\"' )]+", picture)) == {"http://www.w3.org/2000/svg"}
