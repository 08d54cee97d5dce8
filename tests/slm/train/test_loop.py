"""Training: the model learns, the metrics are kept, and the run ends when it should."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

import slm.train.loop
from slm.checkpoint import load_checkpoint
from slm.console.errors import SlmxError
from slm.data.dataset import Dataset
from slm.model import GPT
from slm.storage.hashing import sha256_of
from slm.train.evaluate import Evaluation, evaluate, total_loss
from slm.train.loop import Trainer
from slm.train.plan import TrainSettings
from slm.train.run_folder import RunFolder
from slm.train.train import train
from tests.bundles import Slmx
from tests.runs import (
    QUIET,
    interrupted_after,
    last,
    tensors,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tiny_presets")]


def test_it_learns_and_records_what_it_did(settings: TrainSettings, tiny_data: Path) -> None:
    summary = train(replace(settings, steps=160, eval_every=40, learning_rate=0.02), QUIET)
    dataset = Dataset.open(tiny_data)
    best, newest = load_checkpoint(settings.out / "best"), load_checkpoint(last(settings.out))
    record = newest.record
    curve = record["curve"]
    assert [point["step"] for point in curve] == [40, 80, 120, 160]
    assert curve[-1]["loss"] < curve[0]["loss"] - 0.3
    figures = [point["bits_per_byte"] for point in curve]
    assert figures[-1] < 0.9 * figures[0]
    assert best.record["best"]["bits_per_byte"] == min(figures)
    assert evaluate(best.model, dataset.valid).bits_per_byte == pytest.approx(min(figures), rel=1e-3)
    assert evaluate(newest.model, dataset.valid).bits_per_byte == pytest.approx(figures[-1], rel=1e-4)
    expected: dict[str, Any] = {
        "licence": "MIT",
        "data": dataset.record["sources"],
        "dataset_sha256": sha256_of(tiny_data / "dataset.json"),
        "init": None,
        "parameters": sum(p.numel() for p in newest.model.parameters()),
        "training_tokens": len(dataset.train.ids),
        "validation_tokens": len(dataset.valid.ids),
        "steps_done": 160,
        "tokens_seen": 160 * 4 * 32,
        "precision": "float32",
        "device": "cpu",
        "processes": 1,
        "torch": torch.__version__,
    }
    assert {name: record[name] for name in expected} == expected
    assert (record["plan"]["seed"], record["plan"]["batch_size"], record["plan"]["steps"]) == (1, 4, 160)
    assert {t.dtype for t in tensors(settings.out / "best" / "model.safetensors").values()} == {torch.float16}
    assert {t.dtype for t in tensors(last(settings.out) / "model.safetensors").values()} == {torch.float32}
    assert summary is not None
    assert (summary.steps, summary.tokens, summary.bits_per_byte) == (160, 160 * 4 * 32, min(figures))
    assert summary.training_seconds == pytest.approx(record["seconds"], abs=0.06)


def test_the_speed_leaves_out_the_step_that_compiles(settings: TrainSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step takes a second of this clock, and the first one 100."""
    now = [0.0]
    train_step = Trainer.train_step

    def step(self: Trainer) -> tuple[float, float]:
        now[0] += 100 if not self.step else 1
        return train_step(self)

    monkeypatch.setattr(Trainer, "train_step", step)
    monkeypatch.setattr(slm.train.loop, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    assert train(replace(settings, steps=10), QUIET)
    lines = [m for m in RunFolder(settings.out).metrics() if "tokens_per_second" in m]
    assert [line["tokens_per_second"] for line in lines] == [4 * 32]


def test_a_run_leaves_its_metrics_samples_picture_and_two_checkpoints(settings: TrainSettings) -> None:
    assert train(settings, QUIET)
    assert sorted(path.name for path in settings.out.iterdir()) == [
        "best",
        "loss.png",
        "metrics.jsonl",
        "run.json",
        "samples",
        "step-0000016",
        "step-0000024",
        "summary.json",
    ]
    metrics = RunFolder(settings.out).metrics()
    assert [m["step"] for m in metrics if "loss" in m] == [10, 20, 24]
    assert [m["step"] for m in metrics if "valid_loss" in m] == [8, 16, 24]
    for record in metrics:
        assert all(math.isfinite(value) for value in record.values())
        if "valid_loss" in record:
            dataset = Dataset.open(Path(settings.text[0]))
            expected = record["valid_loss"] / math.log(2) / dataset.valid.bytes_per_token
            assert record["bits_per_byte"] == pytest.approx(expected, rel=1e-4)
    samples = sorted((settings.out / "samples").iterdir())
    assert [path.name for path in samples] == [f"step-{step:07d}.txt" for step in (8, 16, 24)]
    assert samples[-1].read_text("utf-8").count("\n---\n") == 2
    assert (settings.out / "loss.png").read_bytes().startswith(b"\x89PNG")
    stored = json.loads((settings.out / "summary.json").read_text())
    assert stored["tokens"] == 24 * 4 * 32
    assert 0 < stored["utilisation"] < 1


def test_what_a_step_leaves_is_there_before_its_checkpoint(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, save = [], Trainer.save_step

    def watched(trainer: Trainer) -> None:
        samples = settings.out / "samples" / f"step-{trainer.step:07d}.txt"
        seen.append((trainer.step, samples.exists() and (settings.out / "loss.png").exists()))
        save(trainer)

    monkeypatch.setattr(Trainer, "save_step", watched)
    train(settings, QUIET)
    assert seen == [(0, False), (8, True), (16, True), (24, True)]


def test_best_stays_when_later_steps_are_worse(settings: TrainSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    nats = iter([2000.0, 1000.0, 3000.0])
    monkeypatch.setattr(slm.train.loop, "total_loss", lambda *_: next(nats))
    assert train(settings, QUIET)
    assert load_checkpoint(settings.out / "best").record["steps_done"] == 16
    record = load_checkpoint(last(settings.out)).record
    assert record["steps_done"] == 24
    assert record["best"] == record["curve"][1]


def test_best_is_the_step_that_its_record_names(settings: TrainSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = iter([0.733338, 0.733336])  # the same in the five decimals of a record
    monkeypatch.setattr(Trainer, "_validate", lambda _: Evaluation(1.0, next(figures), 32))
    assert train(replace(settings, steps=8, eval_every=4), QUIET)
    record = load_checkpoint(settings.out / "best").record
    assert record["steps_done"] == record["best"]["step"] == 4
    assert load_checkpoint(last(settings.out)).record["best"] == record["best"]


def test_patience_ends_a_run_that_gets_no_better(settings: TrainSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    nats = (1000.0 + 100 * n for n in count())
    monkeypatch.setattr(slm.train.loop, "total_loss", lambda *_: next(nats))
    summary = train(replace(settings, patience=2, eval_every=4), QUIET)
    assert summary is not None
    assert summary.steps == 12
    assert load_checkpoint(settings.out / "best").record["steps_done"] == 4
    finished = replace(settings, resume=True, patience=2, eval_every=4)
    again = train(finished, QUIET)
    assert again is not None
    assert again.steps == 12


def test_the_seed_and_dropout_decide_the_weights(settings: TrainSettings, tmp_path: Path) -> None:
    runs = {}
    for name, seed, dropout in (("a", 1, 0.0), ("b", 1, 0.0), ("c", 2, 0.0), ("d", 1, 0.5)):
        assert train(replace(settings, steps=3, seed=seed, dropout=dropout, out=tmp_path / name), QUIET)
        runs[name] = tensors(last(tmp_path / name) / "model.safetensors")["wte.weight"]
    assert torch.equal(runs["a"], runs["b"])
    assert not torch.equal(runs["a"], runs["c"])
    assert not torch.equal(runs["a"], runs["d"])


def test_evaluation_reads_no_more_than_it_is_told(settings: TrainSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def counted(model: GPT, inputs: npt.NDArray[np.int64], targets: npt.NDArray[np.int64]) -> float:
        read.append(inputs.size)
        return total_loss(model, inputs, targets)

    monkeypatch.setattr(slm.train.loop, "total_loss", counted)
    assert train(replace(settings, steps=1, eval_tokens=100), QUIET)
    assert read == [96]


def test_trackers_get_the_metrics(settings: TrainSettings) -> None:
    assert train(replace(settings, track=("tensorboard",)), QUIET)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (events,) = (path.parent for path in settings.out.rglob("events.out.tfevents*") if path.parent.name == "slmx")
    accumulator = EventAccumulator(str(events))
    accumulator.Reload()
    found = [(event.step, event.value) for event in accumulator.Scalars("bits_per_byte")]
    expected = [(m["step"], m["bits_per_byte"]) for m in RunFolder(settings.out).metrics() if "bits_per_byte" in m]
    assert found == [(step, pytest.approx(value)) for step, value in expected]
    assert len(accumulator.Scalars("loss")) == 3


def test_weights_and_biases_works_offline(settings: TrainSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="needs the track extra")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    assert train(replace(settings, steps=10, track=("wandb",)), QUIET)
    (recorded,) = settings.out.rglob("run-*.wandb")
    assert b"bits_per_byte" in recorded.read_bytes()


def test_a_resumed_run_goes_on_with_its_trackers(settings: TrainSettings) -> None:
    with interrupted_after(5):
        train(replace(settings, track=("tensorboard",)), QUIET)
    before = set(settings.out.rglob("events.out.tfevents*"))
    assert train(replace(settings, resume=True), QUIET)
    assert set(settings.out.rglob("events.out.tfevents*")) > before


def test_a_tracker_that_is_not_installed_is_refused(settings: TrainSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slm.console.errors.find_spec", lambda name: None)
    with pytest.raises(SlmxError, match=r"this command needs tensorboard: .*track"):
        train(replace(settings, track=("tensorboard",)), QUIET)


def test_a_tracker_that_refuses_leaves_the_folder_free(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("No API key configured.\nUse wandb login")

    with monkeypatch.context() as patch:
        patch.setattr("accelerate.Accelerator.init_trackers", refuse)
        with pytest.raises(SlmxError, match=r"^--track tensorboard: cannot begin \(No API key configured\..*leave the"):
            train(replace(settings, track=("tensorboard",)), QUIET)
    with interrupted_after(5):
        train(settings, QUIET)
    with monkeypatch.context() as patch:
        patch.setattr("accelerate.Accelerator.init_trackers", refuse)
        with pytest.raises(SlmxError, match="leave the option out"):
            train(replace(settings, resume=True, track=("tensorboard",)), QUIET)
    assert train(replace(settings, resume=True), QUIET)


def test_a_resumed_run_goes_on_where_its_tracker_is_not_installed(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with interrupted_after(5):
        train(replace(settings, track=("tensorboard",)), QUIET)
    monkeypatch.setattr("slm.train.loop.find_spec", lambda name: None)
    assert train(replace(settings, resume=True), QUIET)


@pytest.mark.parametrize(("heads", "flags"), [("1", "--int8"), ("2", "--no-fp32 --portable")])
def test_the_command_ends_with_the_export_that_works(
    settings: TrainSettings, slmx: Slmx, heads: str, flags: str
) -> None:
    shape = ("--preset", "tiny", "--n-head", heads, "--no-compile")
    ran = slmx("train", *shape, "--text", settings.text[0], "--steps", "2", "--out", "run é")
    assert ran.code == 0
    assert ran.stderr.splitlines()[-1] == f"now: slmx export --checkpoint 'run é' {flags} --out 'bundles/run é'"
    assert ran.stdout == f"{Path('run é', 'best')}\n"
