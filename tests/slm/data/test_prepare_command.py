"""`slmx prepare`: what it reads, what it prints, and the command that it names next."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from slm.commands import next_step
from slm.data.dataset import Dataset
from slm.data.prepare import PrepareSettings, is_held_out
from tests.bundles import Slmx
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
    assert "300 stories between <|endoftext|>, 300 kept\n" in ran.stderr
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
    assert next_step(made, 10_000) == f"now: slmx train --text 'my data'{start} --out 'runs/my data'"


@pytest.mark.parametrize(
    ("tokens", "size"), [(257, ""), (256, " --block-size 128"), (43, " --block-size 32"), (2, " --block-size 1")]
)
def test_the_next_command_has_a_context_that_fits_a_short_text(tokens: int, size: str) -> None:
    made = PrepareSettings(("text",), preset="nano", out=Path("my data"))
    *why, command = next_step(made, tokens).splitlines()
    assert command == f"now: slmx train --text 'my data'{size} --out 'runs/my data'"
    assert [f"the shorter split has {tokens} tokens" in line for line in why] == [True] * bool(size)


def test_a_text_that_is_too_short_to_fine_tune_a_checkpoint_is_said_so(tiny_checkpoint: Path) -> None:
    made = PrepareSettings(("text",), preset="nano", out=Path("data"), tokenizer=tiny_checkpoint)
    assert next_step(made, 65).startswith("now: slmx train --text data --init ")
    rest = "prepare more text: one context of it is 64 tokens, and the shorter split is 64"
    assert next_step(made, 64) == f"to fine-tune {tiny_checkpoint}, {rest}"


def test_a_missing_file_is_told_before_an_installation_is_asked_for(
    slmx: Slmx, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("slm.commands.require", lambda *_: pytest.fail("asked for an installation"))
    line = slmx.refuses("prepare", "no such é.txt", "--out", tmp_path / "d")
    assert line == "no such é.txt: cannot read the text (No such file or directory); check the path"


@pytest.mark.heavy
def test_the_next_command_trains_on_a_short_text(tmp_path: Path, stories: list[str]) -> None:
    (tmp_path / "short é.txt").write_text(as_corpus([*filter(is_held_out, stories)][:1] + stories[:9]), "utf-8")
    ran = run_slmx("prepare", "short é.txt", "--out", "my set", "--vocab-size", "300", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    told = ran.stderr.splitlines()[-1]
    assert told.startswith("now: slmx train --text 'my set' --block-size ")
    command = shlex.split(told.removeprefix("now: slmx "))
    sizes = ["--n-layer", "1", "--n-head", "2", "--n-embd", "16", "--steps", "1", "--no-compile"]
    ran = run_slmx(*command, *sizes, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
