"""The compiler of a training run is neither interrupted by Ctrl-C nor trusted to succeed."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate.utils import DynamoBackend
from rich.console import Console
from torch._dynamo.exc import TorchDynamoException

from slm.console.errors import SlmxError
from slm.console.signals import StopFlag
from slm.train.hardware import compiling, why_not_compiled
from slm.train.loop import Trainer
from slm.train.plan import TrainSettings
from slm.train.run_folder import RunFolder
from slm.train.step import Learner
from slm.train.train import train
from tests.runs import QUIET

BLOCKED = "import signal; print(*sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())))"


def test_the_compiler_gets_no_signal_and_this_process_gets_it_later() -> None:
    seen = []
    before = signal.signal(signal.SIGINT, lambda *_: seen.append("SIGINT"))
    try:
        with compiling():
            blocked = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, check=True).stdout
            signal.raise_signal(signal.SIGINT)
            assert seen == []
        assert seen == ["SIGINT"]
    finally:
        signal.signal(signal.SIGINT, before)
    assert {signal.SIGINT, signal.SIGTERM} <= set(map(int, blocked.split()))
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_compiler_that_fails_is_one_line_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache é"))
    expected = (
        r"^torch\.compile failed \(\.\.\. x\.so: file too short\); add --no-compile\. If it worked here before, delete "
        rf"its cache, {tmp_path}/cache é, while no training runs$"
    )
    with pytest.raises(SlmxError, match=expected), compiling():
        raise TorchDynamoException("traced") from ImportError("x.so:\nfile too short")


def test_what_keeps_torch_compile_from_working_is_known_before_it_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(torch, "__file__", "/opt/venv/torch/__init__.py")
    assert why_not_compiled() is None
    monkeypatch.setattr(torch, "__file__", "/home/me/my venv/torch/__init__.py")
    assert why_not_compiled() == "PyTorch is in a path with a space, /home/me/my venv/torch"
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert why_not_compiled() == "no C++ compiler (c++) is on PATH"


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_presets")
def test_a_run_that_fails_to_compile_leaves_its_folder_free(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(trainer: Trainer) -> None:
        raise TorchDynamoException("traced") from OSError("no linker")

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "train_step", fails)
        with pytest.raises(SlmxError, match="add --no-compile"):
            train(settings, QUIET)
    RunFolder(settings.out).check_free()
    assert train(settings, QUIET)


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_presets")
def test_another_failure_of_the_first_step_keeps_the_checkpoint_that_its_message_names(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Learner, "compute_gradients", lambda learner, step: (math.nan, 1.0))
    with pytest.raises(SlmxError, match=r"the last good checkpoint is .*step-0000000"):
        train(settings, QUIET)
    assert RunFolder(settings.out).load_last().record["steps_done"] == 0


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_presets")
def test_a_run_that_cannot_compile_says_so_and_trains(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("slm.train.hardware", "slm.train.loop", "slm.train.remarks"):
        monkeypatch.setattr(f"{module}.why_not_compiled", lambda: "a path with a space")
    trainer = Trainer(replace(settings, compile=None, steps=2), Console(width=400))
    assert trainer.accelerator.state.dynamo_plugin.backend == DynamoBackend.NO
    assert "trains without torch.compile, which is slower: a path with a space" in capsys.readouterr().out
    assert trainer.run(StopFlag())


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_presets")
def test_a_run_that_reads_a_small_text_many_times_warns(
    settings: TrainSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    few = Trainer(replace(settings, steps=2), Console(width=400))
    assert "times" not in capsys.readouterr().out
    steps = int(21 * len(few.dataset.train.ids) / few.tokens_per_step)
    Trainer(replace(settings, out=settings.out.with_name("long"), steps=steps), Console(width=400))
    assert "warning: this run reads the text 21 times" in capsys.readouterr().out
