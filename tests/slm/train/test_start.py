"""Where a run starts: a preset, a checkpoint to fine-tune, a text."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from slm.checkpoint import load_checkpoint, save_checkpoint
from slm.console.errors import SlmxError, UsageError
from slm.data.dataset import Dataset
from slm.model import GPT
from slm.presets import GPTConfig, as_architecture, get_preset
from slm.storage.hashing import sha256_of
from slm.train.loop import Trainer
from slm.train.plan import TrainSettings
from slm.train.start import nearest_preset
from slm.train.train import train
from tests.runs import (
    OTHER,
    QUIET,
    assert_same_run,
    interrupted_after,
    last,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tiny_presets")]


def test_fine_tuning_starts_from_the_checkpoint(settings: TrainSettings, tmp_path: Path) -> None:
    assert train(replace(settings, steps=60, eval_every=60), QUIET)
    tuned = replace(settings, out=tmp_path / "tuned", init=settings.out, preset=None, steps=1, learning_rate=1e-9)
    assert train(tuned, QUIET)
    start, end = (load_checkpoint(out / "best") for out in (settings.out, tuned.out))
    for name, tensor in start.model.state_dict().items():
        torch.testing.assert_close(end.model.state_dict()[name], tensor, rtol=0, atol=1e-6)
    assert end.record["init"] == {
        "config_sha256": sha256_of(settings.out / "best" / "config.json"),
        "record": start.record,
    }
    assert end.record["best"]["bits_per_byte"] == pytest.approx(start.record["best"]["bits_per_byte"], rel=1e-3)


def test_fine_tuning_on_a_file_keeps_the_tokenizer(settings: TrainSettings, tmp_path: Path, corpus_file: Path) -> None:
    assert train(settings, QUIET)
    tuned = replace(settings, out=tmp_path / "tuned", init=settings.out, text=(str(corpus_file),), steps=2)
    assert train(tuned, QUIET)
    start, end = (load_checkpoint(out / "best") for out in (settings.out, tuned.out))
    assert end.tokenizer == start.tokenizer
    assert Dataset.open(tuned.out / "data").tokenizer == start.tokenizer
    (tuned.out / "run.json").unlink()
    assert train(replace(tuned, init=None, resume=True), QUIET)


@pytest.mark.parametrize("given", ["set", "file"])
def test_a_model_of_no_preset_is_tuned_with_the_defaults_of_the_nearest(
    settings: TrainSettings, tmp_path: Path, tiny_data: Path, corpus_file: Path, given: str
) -> None:
    """A checkpoint from `slmx import` has the preset "custom" and no training record."""
    dataset = Dataset.open(tiny_data)
    config = GPTConfig(block_size=40, vocab_size=300, n_layer=1, n_head=2, n_embd=32)
    torch.manual_seed(3)
    start = tmp_path / "imported"
    start.mkdir()
    model = GPT(config)
    save_checkpoint(start, "custom", model, dataset.tokenizer, dataset.merges, {"imported": {"model_type": "gpt2"}})
    messages = StringIO()
    tuned = replace(settings, init=start, preset=None, steps=2)
    if given == "file":
        tuned = replace(tuned, text=(str(corpus_file),))
    assert train(tuned, Console(file=messages, width=80))
    (line,) = [line for line in messages.getvalue().splitlines() if "no preset" in line]
    assert line == (
        f"no preset has the shape of {start}: training defaults are those of other, the preset nearest in parameters"
    )
    end = load_checkpoint(tuned.out)
    assert (end.preset, end.model.config) == ("custom", config)
    assert end.tokenizer == dataset.tokenizer
    plan = end.record["plan"]
    assert plan["batch_size"] == OTHER.batch_size
    assert plan["learning_rate"] == pytest.approx(OTHER.learning_rate / 10)
    assert end.record["init"]["record"] == {"imported": {"model_type": "gpt2"}}
    assert train(TrainSettings(tuned.out, compile=False, precision="fp32", resume=True), QUIET)
    with pytest.raises(SlmxError, match="a checkpoint of custom, not tiny; leave out --preset"):
        train(replace(tuned, out=tmp_path / "more", preset="tiny"), QUIET)


@pytest.mark.parametrize(
    ("name", "nearest"), [("nano", "nano"), ("medium-512", "medium-512"), ("large-1024", "large-1024")]
)
def test_the_nearest_preset_is_that_of_the_smallest_ratio(name: str, nearest: str) -> None:
    config = get_preset(name).config
    assert nearest_preset(config).name == nearest
    assert nearest_preset(replace(config, block_size=config.block_size + 8)).name == nearest


@pytest.mark.parametrize(
    ("arch", "heads", "warned"),
    [("gpt2", 2, ()), ("gpt2", 4, ("4", "8")), (None, 1, ()), ("llama", 1, ()), (None, 2, ("8", "16"))],
)
def test_heads_that_the_default_graph_cannot_have_are_named_at_the_start(
    settings: TrainSettings, arch: str | None, heads: int, warned: tuple[str, ...]
) -> None:
    """Without --arch, a new model is a Llama."""
    messages = StringIO()
    trainer = Trainer(replace(settings, arch=arch, n_head=heads), Console(file=messages, width=80))
    assert trainer.model.config.family == ("GPT-2" if arch == "gpt2" else "Llama")
    has, needed = warned or ("", "")
    assert [line for line in messages.getvalue().splitlines() if "warning" in line] == bool(warned) * [
        f"warning: attention heads of {has} channels: slmx export needs a multiple of {needed} "
        "(choose another --n-head), or it writes the portable graph only"
    ]


def test_a_file_is_prepared_into_the_run(settings: TrainSettings, corpus_file: Path, tmp_path: Path) -> None:
    from_file = replace(settings, text=(str(corpus_file),), licence="CC0", steps=2)
    assert train(from_file, QUIET)
    dataset = Dataset.open(settings.out / "data")
    record = load_checkpoint(last(settings.out)).record
    assert record["licence"] == "CC0"
    assert record["data"] == dataset.record["sources"]
    assert train(replace(from_file, resume=True), QUIET)
    alone = TrainSettings(settings.out, compile=False, precision="fp32", resume=True)
    assert train(alone, QUIET)


def test_another_text_for_the_data_of_a_run_is_refused_without_the_options_of_prepare(
    settings: TrainSettings, corpus_file: Path, tmp_path: Path
) -> None:
    from_file = replace(settings, text=(str(corpus_file),))
    Trainer(from_file, QUIET)
    other = tmp_path / "other.txt"
    other.write_text(corpus_file.read_text("utf-8") + "One day.", "utf-8")
    how = "from another text, with other options or with the rules of an earlier slmx"
    message = f"data: made {how}; give the same, or choose another --out$"
    for changed in (replace(from_file, text=(str(other),)), replace(from_file, licence="CC0")):
        with pytest.raises(SlmxError, match=message):
            train(changed, QUIET)


def test_sizes_can_be_given(settings: TrainSettings) -> None:
    assert train(replace(settings, n_layer=2, n_embd=24, block_size=16, steps=2), QUIET)
    config = load_checkpoint(settings.out).model.config
    assert (config.n_layer, config.n_embd, config.block_size, config.n_head) == (2, 24, 16, 2)


def test_a_llama_is_trained_and_resumed_exactly(settings: TrainSettings, tmp_path: Path) -> None:
    llama = replace(settings, arch="llama", optimizer="muon")
    assert train(llama, QUIET)
    shape = load_checkpoint(settings.out / "best").model.config
    assert shape == as_architecture(shape, "llama")
    whole = settings.out
    parts = replace(llama, out=tmp_path / "parts")
    with interrupted_after(3):
        assert train(parts, QUIET) is None
    assert train(replace(parts, resume=True), QUIET)
    assert_same_run(whole, parts.out)
    with pytest.raises(SlmxError, match="has its own shape; leave out --arch"):
        train(replace(parts, resume=True, arch="gpt2"), QUIET)
    with pytest.raises(UsageError, match="unknown architecture 'bert': choose one of gpt2, llama"):
        train(replace(settings, out=tmp_path / "other", arch="bert"), QUIET)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arch": "bert"}, "unknown architecture"),
        ({"n_head": 7}, "7 heads do not divide"),
        ({"n_embd": 7}, "do not divide"),
    ],
)
def test_an_impossible_shape_is_refused_before_the_text_is_prepared(
    settings: TrainSettings, corpus_file: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        train(replace(settings, text=(str(corpus_file),), **changes), QUIET)
    assert not (settings.out / "data").exists()
