"""`slmx prepare`: what it reads, what it prints, and the command that it names next."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from slm.commands import train_command
from slm.data.dataset import Dataset
from slm.data.prepare import PrepareSettings, is_held_out
from tests.conftest import as_corpus, run_slmx
from tests.slm.data.conftest import stories_of, write

pytestmark = pytest.mark.slow


def test_the_command_reads_standard_input_and_packed_pipes(
    corpus_file: Path, tmp_path: Path, stories: list[str]
) -> None:
    options = ["--vocab-size", "300", "--out"]
    ran = run_slmx("prepare", "-", *options, tmp_path / "set", cwd=tmp_path, input=as_corpus(stories))
    assert ran.returncode == 0, ran.stderr
    packed = write(tmp_path / "stories.jsonl.gz", stories)
    slmx = f"{sys.executable} -c 'from slm.cli import main; main()'"
    line = f'{slmx} prepare <(cat "{packed}") {" ".join(options)} other'
    subprocess.run(["bash", "-c", line], cwd=tmp_path, check=True, capture_output=True, timeout=120)
    for name in ("set", "other"):
        dataset = Dataset.open(tmp_path / name)
        assert stories_of(dataset.valid, dataset.tokenizer) == [story for story in stories if is_held_out(story)]


def test_the_command_prints_the_folder_and_tells_what_it_did(corpus_file: Path, tmp_path: Path) -> None:
    ran = run_slmx("prepare", corpus_file, "--out", "set", "--vocab-size", "300", "--licence", "CC0", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "set\n"
    assert ", in 1 shard\n" in ran.stderr
    assert (
        "300 stories between <|endoftext|>, 300 kept; dropped: 0 empty, 0 truncated, 0 duplicates, 0 in validation"
        in ran.stderr
    )
    assert ran.stderr.splitlines()[-1] == "now: slmx train --text set --out runs/set"
    assert Dataset.open(tmp_path / "set").record["licence"] == "CC0"


@pytest.mark.parametrize(
    ("options", "start"),
    [
        ({"preset": "nano"}, ""),
        ({"preset": "small"}, " --preset small"),
        ({"preset": "nano", "tokenizer": Path("my run")}, " --init 'my run'"),
        ({"preset": "nano", "tokenizer": Path("nano")}, " --init nano"),
        ({"preset": "small", "tokenizer": Path("a data set")}, " --preset small"),
        ({"preset": "nano", "tokenizer": Path("a bundle")}, ""),
    ],
)
def test_the_next_command_begins_as_the_data_set_was_made(
    options: dict[str, Any], start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for file in ("my run/best/config.json", "my run/best/tokenizer.tiktoken", "my run/best/training.json"):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).touch()
    for file, content in (("a data set/dataset.json", ""), ("a bundle/manifest.json", '{"variants": []}')):
        Path(file).parent.mkdir()
        Path(file).write_text(content)
    made = PrepareSettings(("text",), out=Path("my data"), **options)
    assert train_command(made) == f"slmx train --text 'my data'{start} --out 'runs/my data'"
