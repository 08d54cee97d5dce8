"""`accelerate launch` with two processes on this machine learns what one process learns."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from slm.checkpoint import load_checkpoint
from slm.train.plan import TrainSettings
from slm.train.train import train
from tests.runs import COMMAND, QUIET, assert_learned_alike, last

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tiny_presets")]


@pytest.mark.heavy
def test_two_processes_learn_what_one_does(settings: TrainSettings, tmp_path: Path) -> None:
    settings = replace(settings, dropout=0.0, steps=16)
    assert train(replace(settings, out=tmp_path / "one"), QUIET)
    script = tmp_path / "train.py"
    script.write_text(COMMAND + "main()\n", "utf-8")
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--num_cpu_threads_per_process", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    options = ["train", "--preset", "tiny", "--text", settings.text[0], "--out", str(tmp_path / "two")]
    options += ["--steps", "16", "--eval-every", "8", "--dropout", "0", "--no-compile", "--precision", "fp32"]
    ran = subprocess.run(
        [sys.executable, *launch, str(script), *options],
        cwd=tmp_path,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == str(tmp_path / "two" / "best")
    record = load_checkpoint(last(tmp_path / "two")).record
    assert record["processes"] == 2
    assert_learned_alike(tmp_path / "one", tmp_path / "two")
