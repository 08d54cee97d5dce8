"""`slmx evaluate`: the figures of a checkpoint on a text."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from slm.checkpoint import load_checkpoint
from slm.cli import main
from slm.data.corpus import encode_stories
from slm.data.prepare import PrepareSettings, prepare
from slm.folder_kind import PRETRAINED
from slm.hashing import sha256_of
from slm.train.evaluate import evaluate, read_stream
from tests.runs import QUIET

pytestmark = pytest.mark.slow

SHARED = Path(__file__).parents[4] / "shared" / "data" / "tinystories-valid.txt"


def slmx(monkeypatch: pytest.MonkeyPatch, *args: str | Path) -> int:
    """Exit code of the command, run in this process."""
    monkeypatch.setattr(sys, "argv", ["slmx", *map(str, args)])
    with pytest.raises(SystemExit) as exit_:
        main()
    return int(exit_.value.code or 0)


def test_the_figures_are_those_of_the_library(
    tiny_checkpoint: Path,
    corpus_file: Path,
    stories: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    expected = evaluate(checkpoint.model, encode_stories(stories, checkpoint.tokenizer))
    assert slmx(monkeypatch, "evaluate", tiny_checkpoint, "--text", corpus_file, "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["checkpoint"], figures["text"]) == (str(tiny_checkpoint), [str(corpus_file)])
    assert figures["loss"] == pytest.approx(expected.loss)
    assert figures["perplexity"] == pytest.approx(expected.perplexity)
    assert figures["bits_per_byte"] == pytest.approx(expected.bits_per_byte)
    assert (figures["tokens"], figures["stories"]) == (expected.tokens, 300)
    assert slmx(monkeypatch, "evaluate", tiny_checkpoint, "--text", corpus_file) == 0
    out, err = capsys.readouterr()
    assert err == f"evaluating on {expected.tokens:,} tokens\n"
    assert f"bits per byte  {expected.bits_per_byte:.4f}\n" in out
    assert f"loss           {expected.loss:.4f} nats per token\n" in out
    assert slmx(monkeypatch, "evaluate", tiny_checkpoint, "--text", corpus_file, "--json", "--max-tokens", "200") == 0
    assert json.loads(capsys.readouterr().out)["tokens"] == 192


def test_the_validation_split_of_a_data_set_is_read(
    tiny_checkpoint: Path,
    corpus_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = PrepareSettings((str(corpus_file),), "nano", tmp_path / "set", tokenizer=tiny_checkpoint)
    dataset = prepare(settings, QUIET)
    assert slmx(monkeypatch, "evaluate", tiny_checkpoint, "--text", tmp_path / "set", "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["stories"] == dataset.valid.stories
    other = PrepareSettings((str(corpus_file),), "nano", tmp_path / "other", vocab_size=300)
    prepare(other, QUIET)
    assert slmx(monkeypatch, "evaluate", tiny_checkpoint, "--text", tmp_path / "other") == 1
    assert "has another tokenizer than" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("checkpoint", "text", "message"),
    [
        ("nowhere", "stories", "no slmx checkpoint here"),
        ("tiny", "nowhere.txt", "nowhere.txt: cannot read the text ("),
    ],
)
def test_what_is_missing_is_one_line(
    checkpoint: str,
    text: str,
    message: str,
    tiny_checkpoint: Path,
    corpus_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    where = tiny_checkpoint if checkpoint == "tiny" else Path(checkpoint)
    assert slmx(monkeypatch, "evaluate", where, "--text", corpus_file if text == "stories" else text) == 1
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("slmx: ")
    assert message in line


@pytest.mark.heavy
@pytest.mark.parametrize("preset", sorted(path.name for path in PRETRAINED.iterdir() if path.is_dir()))
@pytest.mark.skipif(not SHARED.is_file(), reason="the validation text is not part of this repository")
def test_the_shipped_checkpoints_reproduce_their_record(preset: str) -> None:
    checkpoint = load_checkpoint(PRETRAINED / preset)
    # The records of the first checkpoints have the key "side" with the values "training" and "validation".
    (source,) = (
        item for item in checkpoint.record["data"] if item.get("split") == "valid" or item.get("side") == "validation"
    )
    if source["sha256"] != sha256_of(SHARED):
        pytest.skip("the validation text here is not the recorded one")
    found = evaluate(checkpoint.model, read_stream([str(SHARED)], checkpoint))
    assert found.bits_per_byte == pytest.approx(checkpoint.record["best"]["bits_per_byte"], abs=2e-4)
