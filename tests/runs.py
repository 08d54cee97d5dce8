"""Runs that train in a second, and ways to interrupt them; its fixtures are known to every test module."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

import slm.train
from slm.presets import PRESETS, GPTConfig, Preset
from slm.train import Trainer, TrainSettings

QUIET = Console(quiet=True)
TINY = Preset("tiny", GPTConfig(32, 300, 1, 2, 16), learning_rate=1e-2, batch_size=4)
OTHER = Preset("other", GPTConfig(32, 300, 1, 2, 24), learning_rate=1e-2, batch_size=4)

# The command with the preset of these tests; it waits in step 5, so that it can be stopped there.
CHILD = """
import sys, time
from pathlib import Path
import torch
import slm.train
from slm.cli import main
from slm.presets import PRESETS, GPTConfig, Preset

torch.set_num_threads(1)
PRESETS["tiny"] = Preset("tiny", GPTConfig(32, 300, 1, 2, 16), learning_rate=1e-2, batch_size=4)
slm.train._precision = lambda device: torch.float32
waits, goes_on = Path("waits"), Path("goes_on")
batch_at = slm.train.batch_at


def waiting_batch_at(*args):
    if args[-1] == 5:
        waits.touch()
        while not goes_on.exists():
            time.sleep(0.02)
    return batch_at(*args)


slm.train.batch_at = waiting_batch_at
main()
"""


@pytest.fixture
def tiny_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Presets that train in a second, on the CPU in float32 wherever the tests run."""
    monkeypatch.setitem(PRESETS, TINY.name, TINY)
    monkeypatch.setitem(PRESETS, OTHER.name, OTHER)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(slm.train, "_precision", lambda device: torch.float32)


@pytest.fixture
def plan(corpus_file: Path, tmp_path: Path) -> TrainSettings:
    return TrainSettings("tiny", (corpus_file,), tmp_path / "run", steps=24, eval_every=8, compile=False)


def tensors(file: Path) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = load_file(file)
    return loaded


def assert_same_run(one: Path, other: Path) -> None:
    """The same bits in the weights and in the optimizer's state."""
    for name in ("model.safetensors", "optimizer.safetensors"):
        first, second = tensors(one / "last" / name), tensors(other / "last" / name)
        assert first.keys() == second.keys()
        assert first
        for key, tensor in first.items():
            assert torch.equal(tensor, second[key]), key


@contextmanager
def interrupted_after(steps: int) -> Iterator[None]:
    """Within it, Ctrl-C arrives as soon as a run has done that many steps; before the first for 0."""
    one_step, flag = Trainer._one_step, slm.train._interrupt_flag

    @contextmanager
    def early_flag() -> Iterator[list[bool]]:
        with flag() as raised:
            if not steps:
                os.kill(os.getpid(), signal.SIGINT)
            yield raised

    def step(self: Trainer, forward: Callable[[torch.Tensor], torch.Tensor]) -> float:
        loss = one_step(self, forward)
        if self.step == steps:
            os.kill(os.getpid(), signal.SIGINT)
        return loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_one_step", step)
        patch.setattr(slm.train, "_interrupt_flag", early_flag)
        yield
