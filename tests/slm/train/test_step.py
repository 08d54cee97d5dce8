"""One step: gradients, optimizers, learning rate, and the order of additions."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils import deterministic

from slm.data.corpus import TokenStream
from slm.train.hardware import device_name, repeatable_sums
from slm.train.loop import Trainer
from slm.train.plan import TrainSettings
from slm.train.train import train
from slm.train.windows import batch_at, window_starts
from tests.runs import (
    QUIET,
    TINY,
    assert_learned_alike,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tiny_presets")]


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
    fill = deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]

    def fail_inside() -> None:
        with repeatable_sums(torch.device(device)):
            assert torch.are_deterministic_algorithms_enabled() == inside
            raise KeyError

    with pytest.raises(KeyError):
        fail_inside()
    assert not torch.are_deterministic_algorithms_enabled()
    assert deterministic.fill_uninitialized_memory == fill  # type: ignore[attr-defined]


def test_accumulated_parts_learn_as_one_batch(settings: TrainSettings, tmp_path: Path) -> None:
    settings = replace(settings, dropout=0.0)
    assert train(settings, QUIET)
    assert train(replace(settings, accumulate=4, out=tmp_path / "parts"), QUIET)
    assert_learned_alike(settings.out, tmp_path / "parts")


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


def test_a_batch_is_what_its_windows_say(settings: TrainSettings) -> None:
    stream: TokenStream = Trainer(settings, QUIET).dataset.train
    starts = window_starts(len(stream.ids), 32, 4, 1, 3)
    inputs, targets = batch_at(stream, 32, 4, 1, 3)
    for row, start in enumerate(starts.tolist()):
        assert inputs[row].tolist() == stream.ids[start : start + 32].tolist()
        assert targets[row].tolist() == stream.ids[start + 1 : start + 33].tolist()


def test_a_record_names_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"NVIDIA H{100 + 100 * device.index}")
    assert device_name(torch.device("cuda", 1)) == "cuda (NVIDIA H200)"
    assert device_name(torch.device("cpu")) == "cpu"
