"""A model for schedulers, and schedulers that end with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtimes import load
from runtimes.engine.generator import Generator
from runtimes.serve.scheduler.scheduler import Scheduler
from tests import bundles
from tests.runtimes.serve.scheduler.clients import Steps
from tests.waiting import PATIENCE


@pytest.fixture(scope="module")
def generator(tiny_checkpoint: Path) -> Generator:
    return load(bundles.tiny_bundle(tiny_checkpoint), "fp32")


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


@pytest.fixture
def start(generator: Generator) -> Iterator[Callable[..., Scheduler]]:
    """Starts schedulers, which end with the test."""
    started: list[Scheduler] = []

    def one(slots: int = 2, queue: int = 64, prefill_chunk: int = 128) -> Scheduler:
        started.append(Scheduler(generator, slots, queue, prefill_chunk))
        return started[-1]

    yield one
    for scheduler in started:
        assert scheduler.drain(PATIENCE), "the test left work behind"
