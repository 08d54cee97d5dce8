"""Training: it learns, it resumes exactly, and it refuses in one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from safetensors.torch import load_file

import slm.train
from slm.checkpoint import load_checkpoint
from slm.corpus import TokenStream
from slm.errors import SlmxError
from slm.presets import PRESETS, GPTConfig, Preset
from slm.train import Trainer, TrainSettings, batch_at, train
from tests.conftest import run_slmx

QUIET = Console(quiet=True)


@pytest.fixture(autouse=True)
def tiny_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = Preset("tiny", GPTConfig(32, 300, 1, 2, 16), learning_rate=1e-2, batch_size=4)
    monkeypatch.setitem(PRESETS, "tiny", tiny)
    monkeypatch.setattr(slm.train, "_precision", lambda device: torch.float32)


@pytest.fixture
def plan(corpus_file: Path, tmp_path: Path) -> TrainSettings:
    return TrainSettings("tiny", (corpus_file,), tmp_path / "run", steps=24, eval_every=8, compile=False)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = load_file(folder / "model.safetensors")
    return loaded


def test_it_learns_and_records(plan: TrainSettings) -> None:
    assert train(replace(plan, licence="MIT", steps=200, eval_every=50), QUIET)
    best, last = load_checkpoint(plan.out / "best"), load_checkpoint(plan.out / "last")
    curve = last.record["curve"]
    assert [point["step"] for point in curve] == [50, 100, 150, 200]
    assert curve[-1]["loss"] < curve[0]["loss"]
    assert curve[-1]["bits_per_byte"] < 0.9 * curve[0]["bits_per_byte"]
    assert best.record["best"]["bits_per_byte"] == min(point["bits_per_byte"] for point in curve)
    assert last.record["tokens_seen"] == 200 * 4 * 32
    assert last.record["licence"] == "MIT"
    assert last.record["plan"]["seed"] == 1
    assert last.record["data"][0]["file"] == "stories.txt"
    assert weights(plan.out / "best")["wte.weight"].dtype == torch.float16
    assert weights(plan.out / "last")["wte.weight"].dtype == torch.float32


@pytest.mark.parametrize("stop_at", [1, 8, 13])
def test_an_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(
    plan: TrainSettings, tmp_path: Path, stop_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(replace(plan, out=tmp_path / "whole"), QUIET)
    one_step = Trainer._one_step

    def interrupt(self: Trainer, forward: object) -> float:
        loss = one_step(self, forward)  # type: ignore[arg-type]
        if self.step == stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        return loss

    monkeypatch.setattr(Trainer, "_one_step", interrupt)
    assert not train(plan, QUIET)
    monkeypatch.undo()
    monkeypatch.setitem(PRESETS, "tiny", Preset("tiny", GPTConfig(32, 300, 1, 2, 16), 1e-2, 4))
    monkeypatch.setattr(slm.train, "_precision", lambda device: torch.float32)
    assert load_checkpoint(plan.out / "last").record["steps_done"] == stop_at
    assert train(replace(plan, resume=True), QUIET)
    expected, found = weights(tmp_path / "whole" / "last"), weights(plan.out / "last")
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name


def test_matrices_alone_decay(plan: TrainSettings) -> None:
    trainer = Trainer(plan, QUIET)
    groups = trainer.optimizer.param_groups
    assert sum(len(group["params"]) for group in groups) == len(list(trainer.model.parameters()))
    for group in groups:
        assert {p.dim() >= 2 for p in group["params"]} == {group["weight_decay"] > 0}


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
    assert torch.equal(targets, inputs + 1)
    per_epoch = max(1, (length - block) // block // batch)
    starts = [int(row[0]) for i in range(per_epoch) for row in batch_at(stream, block, batch, 7, i)[0]]
    if (length - 2 * block) // block >= batch:
        assert len(set(starts)) == len(starts)


def test_a_run_is_neither_overwritten_nor_mixed(plan: TrainSettings, tmp_path: Path) -> None:
    with pytest.raises(SlmxError, match="no run to resume"):
        train(replace(plan, resume=True), QUIET)
    assert train(replace(plan, steps=8), QUIET)
    with pytest.raises(SlmxError, match="holds a run already; add --resume"):
        train(plan, QUIET)
    with pytest.raises(SlmxError, match="the run has steps 8, not 24"):
        train(replace(plan, resume=True), QUIET)
    other = tmp_path / "other.txt"
    other.write_text(plan.data[0].read_text() + "One more story.\n")
    with pytest.raises(SlmxError, match="made from other data"):
        train(replace(plan, steps=8, resume=True, data=(other,)), QUIET)


def test_a_loss_that_is_no_number_stops_the_run(plan: TrainSettings) -> None:
    with pytest.raises(SlmxError, match=r"loss is (nan|inf) at step \d+"):
        train(replace(plan, learning_rate=1e30, grad_clip=1e30), QUIET)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "holds no story"),
        ("One short story.\n" * 2, "shorter than one context"),
        ("ab\0c", "a binary file"),
    ],
)
def test_unusable_text_is_refused(content: str, said: str, plan: TrainSettings, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text(content)
    with pytest.raises(SlmxError, match=said):
        train(replace(plan, data=(path,), valid=plan.data), QUIET)
    assert not plan.out.exists()


def test_the_command_line_refuses_in_one_line(tmp_path: Path) -> None:
    ran = run_slmx("train", "--data", tmp_path / "none.txt", "--out", tmp_path / "run", cwd=tmp_path)
    assert ran.returncode == 1
    assert ran.stderr.splitlines() == [
        f"slmx: {tmp_path / 'none.txt'}: cannot read the corpus (No such file or directory)"
    ]


def test_ctrl_c_saves_and_resume_goes_on(corpus_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ["--preset", "nano", "--data", str(corpus_file), "--valid", str(corpus_file), "--out", str(out)]
    options += ["--steps", "40", "--batch-size", "1", "--eval-every", "20", "--no-compile"]
    command = [sys.executable, "-c", "from slm.cli import main; main()", "train", *options]
    root = str(Path(__file__).parent.parent)
    with subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True) as child:
        for _ in range(600):
            if (out / "last").exists() or child.poll() is not None:
                break
            time.sleep(0.1)
        child.send_signal(signal.SIGINT)
        _, talk = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "--resume goes on" in talk
    done = json.loads((out / "last" / "training.json").read_text())["steps_done"]
    assert 20 <= done < 40
    ran = run_slmx("train", *options, "--resume", cwd=tmp_path)
    assert ran.returncode == 0
    assert f"resumed at step {done} of 40" in ran.stderr
    assert ran.stdout == f"{out / 'best'}\n"
