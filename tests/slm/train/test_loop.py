"""Training: it learns, it resumes exactly, it keeps what it measured."""

from __future__ import annotations

import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.utils.deterministic as deterministic

import slm.train.loop
from slm.checkpoint import load_checkpoint
from slm.data.corpus import TokenStream
from slm.data.dataset import Dataset
from slm.hashing import sha256_of
from slm.model import GPT
from slm.train.evaluate import evaluate, total_loss
from slm.train.hardware import repeatable_sums
from slm.train.loop import Trainer, train
from slm.train.plan import TrainSettings
from slm.train.run_folder import RunFolder
from slm.train.windows import batch_at, window_starts
from tests.runs import (
    COMMAND,
    QUIET,
    TINY,
    WAITING_COMMAND,
    assert_learned_alike,
    assert_same_run,
    interrupted_after,
    last,
    tensors,
)

pytestmark = pytest.mark.usefixtures("tiny_presets")


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


def test_best_stays_when_later_steps_are_worse(settings: TrainSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    nats = iter([2000.0, 1000.0, 3000.0])
    monkeypatch.setattr(slm.train.loop, "total_loss", lambda *_: next(nats))
    assert train(settings, QUIET)
    assert load_checkpoint(settings.out / "best").record["steps_done"] == 16
    record = load_checkpoint(last(settings.out)).record
    assert record["steps_done"] == 24
    assert record["best"] == record["curve"][1]


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


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("stop_at", [0, 1, 8, 13])
def test_a_resumed_run_ends_as_an_uninterrupted_one(
    settings: TrainSettings, tmp_path: Path, stop_at: int, optimizer: str
) -> None:
    settings = replace(settings, optimizer=optimizer)
    assert train(replace(settings, out=tmp_path / "whole"), QUIET)
    with interrupted_after(stop_at):
        assert train(settings, QUIET) is None
    record = load_checkpoint(last(settings.out)).record
    assert (record["steps_done"], record["tokens_seen"]) == (stop_at, stop_at * 4 * 32)
    assert train(replace(settings, resume=True), QUIET)
    assert_same_run(tmp_path / "whole", settings.out)
    outs = (tmp_path / "whole", settings.out)
    whole, resumed = (load_checkpoint(last(out)).record["curve"] for out in outs)
    assert [point["bits_per_byte"] for point in whole] == [point["bits_per_byte"] for point in resumed]
    steps = [[m["step"] for m in RunFolder(out).metrics()] for out in outs]
    assert steps[0] == steps[1]


def test_the_folder_alone_is_enough_to_resume(settings: TrainSettings, tmp_path: Path) -> None:
    settings = replace(settings, accumulate=2)
    assert train(replace(settings, out=tmp_path / "whole"), QUIET)
    with interrupted_after(5):
        assert train(settings, QUIET) is None
    alone = TrainSettings(settings.out, compile=False, precision="fp32", resume=True)
    assert train(alone, QUIET)
    assert_same_run(tmp_path / "whole", settings.out)


def test_a_finished_run_resumed_is_left_as_it_is(settings: TrainSettings, tmp_path: Path) -> None:
    assert train(settings, QUIET)
    shutil.copytree(settings.out, tmp_path / "before")
    assert train(replace(settings, resume=True), QUIET)
    assert_same_run(tmp_path / "before", settings.out)
    before, after = (load_checkpoint(last(out)).record for out in (tmp_path / "before", settings.out))
    assert before == after


def run_until_stopped(cwd: Path, signal_: signal.Signals, stop_at: int, threads: int, *options: str) -> tuple[int, str]:
    """Train in a process that gets a signal in step `stop_at`; returns its exit code and what it wrote to stderr."""
    command = [sys.executable, "-c", WAITING_COMMAND, "train", *options]
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "STOP_AT": str(stop_at), "OMP_NUM_THREADS": str(threads)}
    with subprocess.Popen(command, cwd=cwd, env=env, stderr=subprocess.PIPE, encoding="utf-8") as child:
        until = time.monotonic() + 500
        while not (cwd / "waits").exists() and child.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        child.send_signal(signal_)
        (cwd / "goes_on").touch()
        _, messages = child.communicate(timeout=500)
    assert "Traceback" not in messages
    return child.returncode, messages


@pytest.mark.parametrize(
    ("signal_", "code", "stop_at", "done"),
    [
        (signal.SIGINT, 130, 5, 6),
        (signal.SIGTERM, 130, 5, 6),
        (signal.SIGKILL, -signal.SIGKILL, 0, 0),
        (signal.SIGKILL, -signal.SIGKILL, 3, 0),
        (signal.SIGKILL, -signal.SIGKILL, 9, 8),
    ],
)
def test_a_stopped_process_leaves_a_run_that_goes_on(
    settings: TrainSettings, tmp_path: Path, signal_: signal.Signals, code: int, stop_at: int, done: int
) -> None:
    settings = replace(settings, steps=10, eval_every=4)
    options = ["--preset", "tiny", "--text", settings.text[0], "--out", str(settings.out)]
    options += ["--steps", "10", "--eval-every", "4", "--no-compile", "--precision", "fp32"]
    returned, messages = run_until_stopped(tmp_path, signal_, stop_at, 1, *options)
    assert returned == code, messages
    if signal_ != signal.SIGKILL:
        advice = f"slmx train --resume --out {shlex.quote(str(settings.out))}"
        assert messages.splitlines()[-1] == f"stopped and saved; continue with: {advice}"
    assert load_checkpoint(last(settings.out)).record["steps_done"] == done
    assert train(replace(settings, resume=True), QUIET)
    assert train(replace(settings, out=tmp_path / "whole"), QUIET)
    assert_same_run(tmp_path / "whole", settings.out)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
def test_a_killed_run_with_the_defaults_ends_as_an_uninterrupted_one(tiny_data: Path, tmp_path: Path) -> None:
    """torch.compile, the machine's precision and two threads, as a user gets them."""

    def options(out: str) -> list[str]:
        return ["--preset", "wide", "--text", str(tiny_data), "--steps", "24", "--eval-every", "8", "--out", out]

    def finish(*options: str) -> None:
        command = [sys.executable, "-c", f"{COMMAND}main()", "train", *options]
        env = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "2"}
        ran = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, timeout=500, check=False)
        assert ran.returncode == 0, ran.stderr

    finish(*options("whole"))
    returned, messages = run_until_stopped(tmp_path, signal.SIGKILL, 19, 2, *options("killed"))
    assert returned == -signal.SIGKILL, messages
    assert load_checkpoint(last(tmp_path / "killed")).record["steps_done"] == 16
    finish("--resume", "--out", "killed")
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_a_step_adds_in_the_same_order_every_time(settings: TrainSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(settings, QUIET)
    modes = []
    compute = trainer.learner.compute_gradients

    def watched(step: int) -> tuple[float, float]:
        modes.append(torch.are_deterministic_algorithms_enabled())
        return compute(step)

    monkeypatch.setattr(trainer.learner, "compute_gradients", watched)
    before = torch.are_deterministic_algorithms_enabled()
    trainer.train_step()
    assert modes == [True]
    assert torch.are_deterministic_algorithms_enabled() == before


@pytest.mark.parametrize(("device", "inside"), [("cpu", True), ("cuda", False)])
def test_the_order_of_additions_is_fixed_on_a_cpu_alone_and_let_go_after_an_error(device: str, inside: bool) -> None:
    fill = deterministic.fill_uninitialized_memory

    def fail_inside() -> None:
        with repeatable_sums(torch.device(device)):
            assert torch.are_deterministic_algorithms_enabled() == inside
            raise KeyError

    with pytest.raises(KeyError):
        fail_inside()
    assert not torch.are_deterministic_algorithms_enabled()
    assert deterministic.fill_uninitialized_memory == fill


def test_what_a_kill_left_half_written_is_cleared(settings: TrainSettings) -> None:
    with interrupted_after(3):
        assert train(settings, QUIET) is None
    torn = settings.out / ".step-0000004.ab12" / "new"
    torn.mkdir(parents=True)
    (torn / "model.safetensors").write_bytes(b"half")
    with (settings.out / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1, "lo')
    assert train(replace(settings, resume=True), QUIET)
    assert not torn.parent.exists()
    assert [m["step"] for m in RunFolder(settings.out).metrics() if "loss" in m] == [10, 20, 24]


def test_accumulated_parts_learn_as_one_batch(settings: TrainSettings, tmp_path: Path) -> None:
    settings = replace(settings, dropout=0.0)
    assert train(settings, QUIET)
    assert train(replace(settings, accumulate=4, out=tmp_path / "parts"), QUIET)
    assert_learned_alike(settings.out, tmp_path / "parts")


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
    assert end.tokenizer.ranks == start.tokenizer.ranks
    assert Dataset.open(tuned.out / "data").tokenizer.ranks == start.tokenizer.ranks


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


def test_sizes_can_be_given(settings: TrainSettings) -> None:
    assert train(replace(settings, n_layer=2, n_embd=24, block_size=16, steps=2), QUIET)
    config = load_checkpoint(settings.out).model.config
    assert (config.n_layer, config.n_embd, config.block_size, config.n_head) == (2, 24, 16, 2)


def test_a_step_uses_the_rate_of_the_schedule(settings: TrainSettings) -> None:
    trainer = Trainer(settings, QUIET)
    for step in range(4):
        trainer.train_step()
        rates = {group["lr"] for optimizer in trainer.learner.optimizers for group in optimizer.param_groups}
        assert rates == {trainer.plan.learning_rate_at(step)}


def test_the_gradient_is_clipped(settings: TrainSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(replace(settings, grad_clip=0.01), QUIET)
    norms = []

    def keep_norm() -> None:
        norms.append(
            math.sqrt(sum(float(p.grad.square().sum()) for p in trainer.model.parameters() if p.grad is not None))
        )

    for optimizer in trainer.learner.optimizers:
        monkeypatch.setattr(optimizer, "step", keep_norm)
    _, norm = trainer.train_step()
    assert norm > 0.02
    assert norms[0] == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_matrices_alone_decay(settings: TrainSettings, optimizer: str) -> None:
    trainer = Trainer(replace(settings, optimizer=optimizer), QUIET)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    for parameter in trainer.model.parameters():
        with torch.no_grad():
            parameter.add_(1.0)
        parameter.grad = torch.zeros_like(parameter)
    for inner in trainer.learner.optimizers:
        inner.step()
    for name, parameter in trainer.model.named_parameters():
        kept = 1 - TINY.learning_rate * trainer.plan.weight_decay if parameter.dim() >= 2 else 1.0
        torch.testing.assert_close(parameter.detach(), (before[name] + 1) * kept, msg=name)


def test_muon_moves_the_matrices_of_the_blocks_alone(settings: TrainSettings) -> None:
    trainer = Trainer(settings, QUIET)
    adamw, muon = trainer.learner.inner_optimizers
    names = {id(p): name for name, p in trainer.model.named_parameters()}
    by_muon = {names[id(p)] for group in muon.param_groups for p in group["params"]}
    by_adamw = {names[id(p)] for group in adamw.param_groups for p in group["params"]}

    assert by_muon | by_adamw == set(names.values())
    assert not by_muon & by_adamw


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


def test_a_batch_is_what_its_windows_say(settings: TrainSettings) -> None:
    stream: TokenStream = Trainer(settings, QUIET).dataset.train
    starts = window_starts(len(stream.ids), 32, 4, 1, 3)
    inputs, targets = batch_at(stream, 32, 4, 1, 3)
    for row, start in enumerate(starts.tolist()):
        assert inputs[row].tolist() == stream.ids[start : start + 32].tolist()
        assert targets[row].tolist() == stream.ids[start + 1 : start + 33].tolist()
