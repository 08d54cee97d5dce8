"""The line of a run, metrics.jsonl and the record have the same figures in the same unit; waits are announced."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from slm.train.plan import TrainSettings
from slm.train.run_folder import RunFolder
from slm.train.train import train
from tests.runs import QUIET, interrupted_after

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tiny_presets")]
STEP = re.compile(r"step (\d+)/\d+  loss ([\d.]+)  validation loss ([\d.]+), ([\d.]+) bits per byte")


def told(settings: TrainSettings) -> str:
    """What a run prints to a log."""
    messages = io.StringIO()
    assert train(settings, Console(file=messages, width=400))
    return messages.getvalue()


def test_the_line_and_the_metrics_agree(settings: TrainSettings) -> None:
    text = told(replace(settings, steps=20, eval_every=10))
    metrics = RunFolder(settings.out).metrics()
    for step, loss, valid, bits in STEP.findall(text):
        here = {key: value for m in metrics if m["step"] == int(step) for key, value in m.items()}
        assert float(loss) == pytest.approx(here["loss"], abs=6e-4)
        assert float(valid) == pytest.approx(here["valid_loss"], abs=6e-4)
        assert float(bits) == pytest.approx(here["bits_per_byte"], abs=6e-5)
    assert len(STEP.findall(text)) == 2


def test_fine_tuning_is_measured_before_its_first_step(settings: TrainSettings, tmp_path: Path) -> None:
    assert train(replace(settings, steps=2), QUIET)
    tuned = replace(settings, out=tmp_path / "tuned", init=settings.out, preset=None, steps=2)
    text = told(tuned)
    first = RunFolder(tuned.out).metrics()[0]
    assert first["step"] == 0
    line = f"step 0/2  validation loss {first['valid_loss']:.3f}, {first['bits_per_byte']:.4f} bits per byte"
    assert line in text
    before = RunFolder(settings.out).metrics()[-1]
    assert first["valid_loss"] == pytest.approx(before["valid_loss"], rel=1e-2), "best is stored in 16 bits"
    assert "step 0/" not in told(replace(tuned, steps=None, resume=True, init=None)), "only once"


def test_a_fine_tuning_that_is_resumed_at_its_first_step_has_one_line_of_it(
    settings: TrainSettings, tmp_path: Path
) -> None:
    assert train(replace(settings, steps=2), QUIET)
    tuned = replace(settings, out=tmp_path / "tuned", init=settings.out, preset=None, steps=2)
    with interrupted_after(0):
        assert train(tuned, QUIET) is None
    assert train(replace(tuned, steps=None, resume=True, init=None), QUIET)
    assert [m["step"] for m in RunFolder(tuned.out).metrics() if "valid_loss" in m] == [0, 2]


@pytest.mark.parametrize(("learning_rate", "worse"), [(0.5, True), (1e-4, False)])
def test_a_fine_tuning_that_makes_it_worse_says_so(
    settings: TrainSettings, tmp_path: Path, learning_rate: float, worse: bool
) -> None:
    assert train(replace(settings, steps=80, eval_every=80), QUIET)
    tuned = replace(settings, out=tmp_path / "tuned", init=settings.out, preset=None, steps=8)
    text = told(replace(tuned, learning_rate=learning_rate, dropout=0.0))
    assert "best so far" in text
    assert ("no better than before fine-tuning" in " ".join(text.split())) is worse


def test_a_new_model_is_not_measured_before_it_has_learned(settings: TrainSettings) -> None:
    text = told(replace(settings, steps=2, compile=False))
    assert "step 0/" not in text
    assert "compiles" not in text


@pytest.mark.parametrize(("steps", "estimated"), [(20, False), (21, True)])
def test_the_time_is_estimated_only_if_steps_are_left(settings: TrainSettings, steps: int, estimated: bool) -> None:
    assert ("left: about" in told(replace(settings, steps=steps))) is estimated
