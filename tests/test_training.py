"""Training: it learns, it resumes exactly, it follows its schedule."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import slm.train
from slm.checkpoint import load_checkpoint
from slm.corpus import TokenStream, encode_stories, is_held_out, read_stories
from slm.evaluate import evaluate
from slm.hashing import sha256_of
from slm.train import Trainer, TrainSettings, batch_at, train
from tests.conftest import as_corpus
from tests.runs import (
    CHILD,
    QUIET,
    TINY,
    assert_same_run,
    interrupted_after,
    tensors,
)

pytestmark = pytest.mark.usefixtures("tiny_presets")


def test_it_learns_and_records_what_it_did(plan: TrainSettings, corpus_file: Path) -> None:
    stories = list(read_stories([corpus_file]))
    held_out = [story for story in stories if is_held_out(story)]
    assert train(replace(plan, licence="MIT", steps=160, eval_every=40, learning_rate=0.02), QUIET)
    best, last = load_checkpoint(plan.out / "best"), load_checkpoint(plan.out / "last")
    record = last.record
    curve = record["curve"]
    assert [point["step"] for point in curve] == [40, 80, 120, 160]
    assert curve[-1]["loss"] < curve[0]["loss"] - 0.3
    figures = [point["bits_per_byte"] for point in curve]
    assert figures[-1] < 0.9 * figures[0]
    assert best.record["best"]["bits_per_byte"] == min(figures)
    stream = encode_stories(held_out, best.tokenizer)
    assert evaluate(best.model, stream) == pytest.approx(min(figures), rel=1e-3)
    assert evaluate(last.model, stream) == pytest.approx(figures[-1], rel=1e-4)
    assert record["data"] == [
        {
            "side": "training",
            "file": "stories.txt",
            "bytes": corpus_file.stat().st_size,
            "sha256": sha256_of(corpus_file),
        }
    ]
    expected: dict[str, Any] = {
        "licence": "MIT",
        "parameters": sum(p.numel() for p in last.model.parameters()),
        "steps_done": 160,
        "tokens_seen": 160 * 4 * 32,
        "precision": "float32",
        "device": "cpu",
        "torch": torch.__version__,
    }
    assert {name: record[name] for name in expected} == expected
    assert (record["plan"]["seed"], record["plan"]["batch_size"], record["plan"]["steps"]) == (1, 4, 160)
    learnt_from = encode_stories([story for story in stories if not is_held_out(story)], last.tokenizer)
    assert record["training_tokens"] == len(learnt_from.ids)
    assert record["seconds"] > 0
    assert {t.dtype for t in tensors(plan.out / "best" / "model.safetensors").values()} == {torch.float16}
    assert {t.dtype for t in tensors(plan.out / "last" / "model.safetensors").values()} == {torch.float32}
    assert sorted(path.name for path in plan.out.iterdir()) == ["best", "last"]


def test_best_stays_when_later_steps_are_worse(plan: TrainSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = iter([2.0, 1.0, 3.0])
    monkeypatch.setattr(slm.train, "evaluate", lambda *_: next(figures))
    assert train(plan, QUIET)
    assert load_checkpoint(plan.out / "best").record["steps_done"] == 16
    last = load_checkpoint(plan.out / "last").record
    assert last["steps_done"] == 24
    assert last["best"] == last["curve"][1]
    assert last["best"]["bits_per_byte"] == 1.0


def test_held_out_stories_are_not_trained_on(plan: TrainSettings, corpus_file: Path, tmp_path: Path) -> None:
    def stories_of(stream: TokenStream, trainer: Trainer) -> set[str]:
        pieces = np.split(stream.ids, np.flatnonzero(stream.ids == trainer.tokenizer.end_of_text))
        return {trainer.tokenizer.decode(piece.tolist()) for piece in pieces if len(piece)}

    everything = set(read_stories([corpus_file]))
    trainer = Trainer(plan, QUIET)
    trained, held = stories_of(trainer.train_stream, trainer), stories_of(trainer.valid_stream, trainer)
    assert held == {story for story in everything if is_held_out(story)}
    assert trained == everything - held
    valid = tmp_path / "valid.txt"
    valid.write_text(as_corpus(sorted(everything)[:9]), "utf-8")
    trainer = Trainer(replace(plan, valid=(valid,)), QUIET)
    assert stories_of(trainer.train_stream, trainer) == everything
    assert stories_of(trainer.valid_stream, trainer) == set(sorted(everything)[:9])
    assert [(item["side"], item["file"]) for item in trainer.data] == [
        ("training", "stories.txt"),
        ("validation", "valid.txt"),
    ]


def test_the_seed_and_dropout_decide_the_weights(plan: TrainSettings, tmp_path: Path) -> None:
    runs = {}
    for name, seed, dropout in (("a", 1, 0.0), ("b", 1, 0.0), ("c", 2, 0.0), ("d", 1, 0.5)):
        assert train(replace(plan, steps=3, seed=seed, dropout=dropout, out=tmp_path / name), QUIET)
        runs[name] = tensors(tmp_path / name / "last" / "model.safetensors")["wte.weight"]
    assert torch.equal(runs["a"], runs["b"])
    assert not torch.equal(runs["a"], runs["c"])
    assert not torch.equal(runs["a"], runs["d"])


@pytest.mark.parametrize("stop_at", [0, 1, 8, 13])
def test_a_resumed_run_ends_as_an_uninterrupted_one(plan: TrainSettings, tmp_path: Path, stop_at: int) -> None:
    assert train(replace(plan, out=tmp_path / "whole"), QUIET)
    with interrupted_after(stop_at):
        assert not train(plan, QUIET)
    record = load_checkpoint(plan.out / "last").record
    assert (record["steps_done"], record["tokens_seen"]) == (stop_at, stop_at * 4 * 32)
    assert train(replace(plan, resume=True), QUIET)
    assert_same_run(tmp_path / "whole", plan.out)
    whole, resumed = (load_checkpoint(out / "last").record["curve"] for out in (tmp_path / "whole", plan.out))
    assert [point["bits_per_byte"] for point in whole] == [point["bits_per_byte"] for point in resumed]


def test_a_finished_run_resumed_is_left_as_it_is(plan: TrainSettings, tmp_path: Path) -> None:
    assert train(plan, QUIET)
    shutil.copytree(plan.out, tmp_path / "before")
    assert train(replace(plan, resume=True), QUIET)
    assert_same_run(tmp_path / "before", plan.out)
    assert load_checkpoint(plan.out / "last").record == load_checkpoint(tmp_path / "before" / "last").record


@pytest.mark.parametrize(("signal_", "code", "done"), [(signal.SIGINT, 130, 6), (signal.SIGKILL, -signal.SIGKILL, 4)])
def test_a_stopped_process_leaves_a_run_that_goes_on(
    plan: TrainSettings, tmp_path: Path, signal_: signal.Signals, code: int, done: int
) -> None:
    plan = replace(plan, steps=10, eval_every=4)
    options = ["--preset", "tiny", "--data", str(plan.data[0]), "--out", str(plan.out)]
    options += ["--steps", "10", "--eval-every", "4", "--no-compile"]
    command = [sys.executable, "-c", CHILD, "train", *options]
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    with subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, encoding="utf-8") as child:
        until = time.monotonic() + 100
        while not (tmp_path / "waits").exists() and child.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        child.send_signal(signal_)
        (tmp_path / "goes_on").touch()
        _, talk = child.communicate(timeout=60)
    assert child.returncode == code, talk
    assert "Traceback" not in talk
    if signal_ == signal.SIGINT:
        assert talk.splitlines()[-1] == f"stopped; {plan.out / 'last'} is saved: the same command with --resume goes on"
    assert load_checkpoint(plan.out / "last").record["steps_done"] == done
    assert train(replace(plan, resume=True), QUIET)
    assert train(replace(plan, out=tmp_path / "whole"), QUIET)
    assert_same_run(tmp_path / "whole", plan.out)


def test_matrices_alone_decay(plan: TrainSettings) -> None:
    trainer = Trainer(plan, QUIET)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    for parameter in trainer.model.parameters():
        with torch.no_grad():
            parameter.add_(1.0)
        parameter.grad = torch.zeros_like(parameter)
    trainer.optimizer.step()
    for name, parameter in trainer.model.named_parameters():
        kept = 1 - TINY.learning_rate * plan.weight_decay if parameter.dim() >= 2 else 1.0
        torch.testing.assert_close(parameter.detach(), (before[name] + 1) * kept, msg=name)


def test_the_gradient_is_clipped(plan: TrainSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(replace(plan, grad_clip=0.01), QUIET)
    norms = []

    def keep_norm() -> None:
        norms.append(
            math.sqrt(sum(float(p.grad.square().sum()) for p in trainer.model.parameters() if p.grad is not None))
        )

    monkeypatch.setattr(trainer.optimizer, "step", keep_norm)
    trainer._one_step(trainer.model)
    assert norms == [pytest.approx(0.01, rel=1e-3)]


def test_the_rate_warms_up_and_falls(plan: TrainSettings) -> None:
    schedule = Trainer(replace(plan, steps=1000), QUIET).plan
    rates = [schedule.learning_rate_at(step) for step in range(1000)]
    peak = rates.index(max(rates))
    assert peak in (schedule.warmup - 1, schedule.warmup)
    assert max(rates) == pytest.approx(1e-2)
    assert rates[0] < 0.02 * max(rates)
    assert sorted(rates[: peak + 1]) == rates[: peak + 1]
    assert sorted(rates[peak:], reverse=True) == rates[peak:]
    assert rates[-1] == pytest.approx(0.05 * max(rates), rel=0.01)


def test_a_step_uses_the_rate_of_the_schedule(plan: TrainSettings) -> None:
    trainer = Trainer(plan, QUIET)
    for step in range(4):
        trainer._one_step(trainer.model)
        assert {group["lr"] for group in trainer.optimizer.param_groups} == {trainer.plan.learning_rate_at(step)}


def test_the_budget_is_twenty_tokens_for_each_parameter(plan: TrainSettings) -> None:
    trainer = Trainer(replace(plan, steps=None), QUIET)
    wanted = 20 * trainer.model.config.parameters
    assert wanted <= trainer.plan.steps * trainer.tokens_per_step < wanted + trainer.tokens_per_step


@settings(max_examples=60, deadline=None)
@given(st.integers(10, 400), st.integers(2, 9), st.integers(1, 5), st.integers(0, 200))
def test_batches_depend_on_the_step_alone_and_an_epoch_repeats_nothing(
    length: int, block: int, batch: int, step: int
) -> None:
    stream = TokenStream(np.arange(length, dtype=np.uint16), length, 1)
    inputs, targets = batch_at(stream, block, batch, 7, step)
    again, _ = batch_at(stream, block, batch, 7, step)
    assert torch.equal(inputs, again)
    assert inputs.shape == (batch, block)
    assert torch.equal(inputs, inputs[:, :1] + torch.arange(block))
    assert torch.equal(targets, inputs + 1)
    assert int(targets.max()) < length
    per_epoch = max(1, (length - block) // block // batch)
    starts = [int(row[0]) for i in range(per_epoch) for row in batch_at(stream, block, batch, 7, i)[0]]
    if (length - 2 * block) // block >= batch:
        assert len(set(starts)) == len(starts)


def test_epochs_differ_and_reach_every_token() -> None:
    stream = TokenStream(np.arange(203, dtype=np.uint16), 203, 1)
    epochs = [[batch_at(stream, 10, 2, 7, epoch * 9 + i)[0] for i in range(9)] for epoch in range(40)]
    assert not torch.equal(epochs[0][0], epochs[1][0])
    seen = {int(token) for epoch in epochs for rows in epoch for token in rows.flatten()}
    assert seen == set(range(202))
