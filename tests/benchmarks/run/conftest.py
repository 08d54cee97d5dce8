"""A bundle, a meter, and an idle machine for the tests of runs."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.quality import text_quality
from benchmarks.run import bench
from benchmarks.run.progress import Meter
from export.checks.float_model import FloatModel
from tests import bundles


@pytest.fixture(autouse=True)
def on_an_idle_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The speed of memory and other processes are not measured, and few tokens of a text are read."""
    monkeypatch.setattr(text_quality, "FloatModel", functools.partial(FloatModel, max_tokens=bundles.CHECKED_TOKENS))
    monkeypatch.setattr(text_quality, "CONTINUED", 5)
    monkeypatch.setattr(bench, "busy_now", lambda: None)
    monkeypatch.setattr(bench, "read_bandwidth", lambda threads: 1e9 * threads)


@pytest.fixture
def bundle(tiny_checkpoint: Path) -> Path:
    return bundles.tiny_bundle_of_all(tiny_checkpoint)


@pytest.fixture
def meter() -> Iterator[Meter]:
    with Meter() as found:
        yield found
