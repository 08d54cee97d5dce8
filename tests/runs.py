"""Runs that train in a second, and ways to interrupt them. Every test module can use these fixtures."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from rich.console import Console
from safetensors.torch import load_file

from slm.console.signals import StopFlag
from slm.data.cleaning import RULES
from slm.data.prepare import PrepareSettings, prepare
from slm.presets import PRESETS, GPTConfig, Preset
from slm.train.loop import Trainer
from slm.train.plan import TrainSettings
from slm.train.run_folder import RunFolder

QUIET = Console(quiet=True)
TINY = Preset("tiny", GPTConfig(32, 300, 1, 2, 16), learning_rate=1e-2, batch_size=4)
OTHER = Preset("other", GPTConfig(32, 300, 1, 2, 24), learning_rate=1e-2, batch_size=4)

# The command with the presets of these tests. "wide" is large enough for compiled code to use two threads.
COMMAND = """
from slm.cli import main
from slm.presets import PRESETS, GPTConfig, Preset

PRESETS["tiny"] = Preset("tiny", GPTConfig(32, 300, 1, 2, 16), learning_rate=1e-2, batch_size=4)
PRESETS["wide"] = Preset("wide", GPTConfig(64, 300, 1, 2, 64), learning_rate=1e-2, batch_size=8)
"""
# It waits in step STOP_AT, so that it can be stopped there.
WAITING_COMMAND = (
    COMMAND
    + """
import os, time
from pathlib import Path
import slm.train.step

waits, goes_on = Path("waits"), Path("goes_on")
batch_at = slm.train.step.batch_at


def waiting_batch_at(*args):
    if args[-1] == int(os.environ["STOP_AT"]):
        waits.touch()
        while not goes_on.exists():
            time.sleep(0.02)
    return batch_at(*args)


slm.train.step.batch_at = waiting_batch_at
main()
"""
)


@pytest.fixture(scope="session")
def tiny_data(corpus_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared data set of the generated stories with 300 tokens. Tests must not change it."""
    out = tmp_path_factory.mktemp("data") / "a sét #1 100%"
    prepare(PrepareSettings((str(corpus_file),), "nano", out, licence="MIT", vocab_size=300), QUIET)
    return out


@pytest.fixture
def tiny_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Presets that train in a second, on the CPU of any machine."""
    use_tiny_presets(monkeypatch)


def use_tiny_presets(patch: pytest.MonkeyPatch) -> None:
    """What `tiny_presets` does, for fixtures of a wider scope."""
    patch.setitem(PRESETS, TINY.name, TINY)
    patch.setitem(PRESETS, OTHER.name, OTHER)
    patch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def settings(tiny_data: Path, tmp_path: Path) -> TrainSettings:
    """A run of 24 steps in float32."""
    return brief_run(tiny_data, tmp_path)


def brief_run(tiny_data: Path, folder: Path) -> TrainSettings:
    """What `settings` gives, in a folder of its own."""
    # accelerate keeps the precision for a whole process, so an earlier command in this process may have set it.
    AcceleratorState._reset_state(reset_partial_state=True)
    return TrainSettings(
        folder / "my rün #1 100%", (str(tiny_data),), "tiny", steps=24, eval_every=8, compile=False, precision="fp32"
    )


def last(out: Path) -> Path:
    """The newest checkpoint of a run."""
    newest = RunFolder(out).last
    assert newest is not None
    return newest


def tensors(file: Path) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = load_file(file)
    return loaded


def assert_same_run(one: Path, other: Path) -> None:
    """The same bits in the weights and in the optimizer's state."""
    for name in ("model.safetensors", "optimizer.safetensors"):
        first, second = tensors(last(one) / name), tensors(last(other) / name)
        assert first.keys() == second.keys()
        assert first
        for key, tensor in first.items():
            assert torch.equal(tensor, second[key]), key


@contextmanager
def interrupted_after(steps: int) -> Iterator[None]:
    """Inside the block, a run gets Ctrl-C after this many steps. 0 means before the first step."""
    train_step, raised_by_signals = Trainer.train_step, StopFlag.raised_by_signals

    @contextmanager
    def early(self: StopFlag) -> Iterator[None]:
        with raised_by_signals(self):
            if not steps:
                signal.raise_signal(signal.SIGINT)
            yield

    def step(self: Trainer) -> tuple[float, float]:
        done = train_step(self)
        if self.step == steps:
            signal.raise_signal(signal.SIGINT)
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train_step", step)
        patch.setattr(StopFlag, "raised_by_signals", early)
        yield


def assert_learned_alike(one: Path, other: Path) -> None:
    """The same losses and gradient norms, except for rounding."""
    first, second = ([m for m in RunFolder(out).metrics() if "loss" in m] for out in (one, other))
    assert [m["step"] for m in first] == [m["step"] for m in second]
    for a, b in zip(first, second, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-4)
        assert b["gradient_norm"] == pytest.approx(a["gradient_norm"], rel=1e-3)
    found = [[m["bits_per_byte"] for m in RunFolder(out).metrics() if "valid_loss" in m] for out in (one, other)]
    assert found[1] == pytest.approx(found[0], rel=1e-4)


def make_older(dataset: Path) -> None:
    """Turns a data set into one that was made before its rules had a version."""
    file = dataset / "dataset.json"
    record = json.loads(file.read_text("utf-8"))
    assert record["settings"].pop("rules") == RULES
    file.write_text(json.dumps(record), "utf-8")
