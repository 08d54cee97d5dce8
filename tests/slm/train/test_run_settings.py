"""What a resumed run takes from its run.json, or from its checkpoint without one."""

from __future__ import annotations

import errno
import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from slm.checkpoint import load_checkpoint
from slm.console.errors import SlmxError
from slm.storage.json_reader import read_json
from slm.train import loop, run_folder
from slm.train.plan import TrainSettings
from slm.train.run_folder import RunFolder
from slm.train.train import train
from tests.runs import QUIET, interrupted_after, last

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tiny_presets")]


@pytest.mark.parametrize("content", [None, b"{", b"[]"])
def test_a_run_without_its_settings_keeps_the_precision_of_its_checkpoint_and_says_so(
    settings: TrainSettings, content: bytes | None
) -> None:
    with interrupted_after(3):
        assert train(settings, QUIET) is None
    (settings.out / "run.json").unlink()
    if content is not None:
        (settings.out / "run.json").write_bytes(content)
    output = io.StringIO()
    resumed = TrainSettings(settings.out, text=settings.text, compile=False, resume=True)
    assert train(resumed, Console(file=output, width=400))
    assert "run.json is missing or damaged: stop and give --no-compile and --track" in output.getvalue()
    assert load_checkpoint(last(settings.out)).record["precision"] == "float32"


def test_a_run_whose_settings_may_not_be_read_is_not_resumed(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with interrupted_after(3):
        assert train(settings, QUIET) is None
    file, real = settings.out / "run.json", read_json

    def closed(path: Path, *limits: int) -> object:
        if path == file:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *limits)

    monkeypatch.setattr(run_folder, "read_json", closed)
    with pytest.raises(SlmxError, match=r"run\.json: cannot read \(Permission denied\); check its permissions$"):
        train(TrainSettings(settings.out, text=settings.text, resume=True), QUIET)


def test_a_folder_that_takes_no_samples_keeps_the_checkpoint_of_the_step(settings: TrainSettings) -> None:
    with interrupted_after(3):
        assert train(settings, QUIET) is None
    (settings.out / "samples" / "step-0000008.txt").mkdir()
    with pytest.raises(OSError, match=r"step-0000008\.txt"):
        train(replace(settings, resume=True), QUIET)
    assert load_checkpoint(last(settings.out)).record["steps_done"] == 8


def test_a_log_has_a_line_of_progress_between_evaluations(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "LINE_SECONDS", 0.0)
    output = io.StringIO()
    assert train(replace(settings, steps=4, eval_every=4), Console(file=output, width=400))
    lines = [line.split("  ")[0] for line in output.getvalue().splitlines() if line.startswith("step ")]
    assert lines == ["step 1/4", "step 2/4", "step 3/4", "step 4/4"]
    assert len(RunFolder(settings.out).metrics()) == 2
