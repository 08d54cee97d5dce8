"""A run that needs more memory than there is ends with one line, and its folder is free."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from slm.train.memory import ShortageError
from slm.train.plan import TrainSettings
from slm.train.train import train
from tests.bundles import Slmx
from tests.runs import QUIET, interrupted_after

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tiny_presets")]


@pytest.mark.parametrize(
    ("option", "size", "lower"),
    [
        ("--n-embd", 10**9, "--n-layer or --n-embd"),
        ("--n-layer", 10**8, "--n-layer or --n-embd"),
        ("--batch-size", 10**8, "--batch-size or --block-size, or raise --accumulate"),
        ("--batch-size", 2**63 - 1, "--batch-size or --block-size, or raise --accumulate"),
    ],
)
def test_a_run_that_needs_more_memory_than_there_is_leaves_nothing(
    option: str, size: int, lower: str, settings: TrainSettings, slmx: Slmx
) -> None:
    asked = ("train", "--preset", "tiny", "--text", settings.text[0], option, str(size))
    for where in (("--out", settings.out), ("--dry-run",)):
        line = slmx.refuses(*asked, *where)
        assert re.fullmatch(
            rf"this run needs at least [\d,.]+ GiB of memory, and [\d,.]+ GiB are free: lower {lower}", line
        )
        assert not settings.out.exists()


def test_a_shortage_names_only_options_that_the_run_can_take(
    settings: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(settings, QUIET)
    tuned = replace(settings, init=settings.out, out=tmp_path / "tuned")
    with pytest.raises(ShortageError, match=r"GiB are free: lower --batch-size, or raise --accumulate$"):
        train(replace(tuned, batch_size=10**8), QUIET)
    with interrupted_after(1):
        assert train(tuned, QUIET) is None
    for asked, advice in (
        (replace(tuned, out=tmp_path / "other", batch_size=1), "start from a smaller checkpoint"),
        (replace(tuned, init=None, resume=True), "free some memory, or resume on a machine with more"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr("slm.train.memory.memory_bytes", lambda: 1)
            with pytest.raises(ShortageError, match=f"GiB are free: {advice}$"):
                train(asked, QUIET)
    monkeypatch.setattr("slm.train.step.batch_at", Mock(side_effect=MemoryError()))
    everything = "lower --batch-size, or raise --accumulate, or start from a smaller checkpoint"
    with pytest.raises(ShortageError, match=f"for this run: {everything}$"):
        train(replace(tuned, out=tmp_path / "other"), QUIET)


def test_a_shortage_of_memory_in_the_first_step_leaves_the_folder_free(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "[enforce fail at alloc_cpu.cpp:131] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"
    for error in (MemoryError(), RuntimeError(said), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")):
        with monkeypatch.context() as patched:
            patched.setattr("slm.train.step.batch_at", Mock(side_effect=error))
            with pytest.raises(
                ShortageError, match="there is not enough memory for this run: lower --batch-size or --block-size, "
            ):
                train(settings, QUIET)
    with monkeypatch.context() as patched:
        patched.setattr("slm.train.step.batch_at", Mock(side_effect=RuntimeError("shape mismatch")))
        with pytest.raises(RuntimeError, match="shape mismatch"):
            train(replace(settings, out=settings.out.with_name("other")), QUIET)
    assert train(settings, QUIET)
