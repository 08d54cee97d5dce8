"""What a run says before its first step."""

from __future__ import annotations

import os

import pytest
import torch

from slm.train.plan import TrainSettings
from slm.train.remarks import remarks
from tests.runs import TINY


@pytest.mark.parametrize(
    ("load", "threads", "given", "warned"),
    [(3.0, 2, False, True), (3.0, 2, True, False), (3.0, 1, False, False), (0.5, 2, False, False)],
)
def test_a_busy_machine_is_warned_of_unless_the_run_has_one_thread(
    settings: TrainSettings,
    load: float,
    threads: int,
    given: bool,
    warned: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
    told = [line for line in remarks(settings, TINY.config, 1.0) if "other programs" in line]
    assert len(told) == warned
