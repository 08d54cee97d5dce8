"""A dry run says what a run will need, and leaves no trace of it."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from slm.console.errors import SlmxError
from slm.train.dry_run import TIMED_STEPS, Estimate, dry_run
from slm.train.loop import Trainer
from slm.train.plan import TrainSettings
from slm.train.train import train
from tests.bundles import Slmx
from tests.runs import QUIET

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tiny_presets")]


def test_the_estimate_is_that_of_the_run_and_nothing_stays(
    settings: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    steps: list[int] = []
    train_step = Trainer.train_step

    def counted(self: Trainer) -> tuple[float, float]:
        steps.append(self.step)
        return train_step(self)

    monkeypatch.setattr(Trainer, "train_step", counted)
    found = dry_run(replace(settings, steps=1000, eval_every=300), Console(quiet=True))
    assert steps == list(range(TIMED_STEPS + 1))
    assert list(tmp_path.iterdir()) == []
    assert (found.steps, found.tokens, found.evaluations) == (1000, 1000 * 4 * 32, 4)
    summary = train(replace(settings, steps=8), QUIET)
    assert summary is not None
    assert found.parameters == summary.parameters
    files = sum(path.stat().st_size for path in (settings.out / "step-0000008").iterdir())
    assert 3 * files < found.disk_bytes < 6 * files


def test_seconds_are_those_of_all_steps_and_evaluations() -> None:
    found = Estimate(10, 101, 1010, 2.0, 30.0, 0.5, 4, 10.0, 2**20, 2**21)
    assert found.seconds == 30 + 100 * 0.5 + 4 * 10
    assert list(found.lines()) == [
        "parameters  10",
        "steps       101, 1,010 tokens, 2.0 times the training text",
        "time        2 min at 20 tokens/s, 4 evaluations included",
        "memory      1 MiB",
        "disk        2 MiB for checkpoints",
    ]


def test_the_command_prints_the_figures_and_refuses_what_the_run_would(
    settings: TrainSettings, slmx: Slmx, tmp_path: Path
) -> None:
    data = str(settings.text[0])
    flags = ("--text", data, "--preset", "tiny", "--steps", "3", "--no-compile", "--out", "run é", "--dry-run")
    ran = slmx("train", *flags)
    assert ran.code == 0
    assert [line.split()[0] for line in ran.stdout.splitlines()] == ["parameters", "steps", "time", "memory", "disk"]
    assert not Path("run é").exists()
    without = slmx("train", *flags[:-3], "--dry-run")
    assert (without.code, len(without.stdout.splitlines())) == (0, 5), without.stderr
    assert slmx.refuses("train", *flags[:-3], code=2) == "--out is missing"
    assert slmx.refuses("train", *flags, "--resume", code=2) == (
        "--dry-run is for a run that has not begun: drop --resume"
    )
    Path("run é").mkdir()
    Path("run é", "mine.txt").write_text("mine")
    assert "mine.txt is not of a training run" in slmx.refuses("train", *flags)
    with pytest.raises(SlmxError, match="is not of a training run"):
        dry_run(replace(settings, out=tmp_path / "run é"), QUIET)
