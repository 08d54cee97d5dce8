"""The tiny model for batchers, and what they read."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtimes import load
from runtimes.engine.generator import Generator
from tests import bundles
from tests.runtimes.engine.batcher.reads import Reads


@pytest.fixture(scope="module")
def generator(tiny_checkpoint: Path) -> Generator:
    return load(bundles.tiny_bundle(tiny_checkpoint), "fp32")


@pytest.fixture(scope="module")
def int8(tiny_checkpoint: Path) -> Generator:
    return load(bundles.tiny_bundle(tiny_checkpoint), "int8")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(monkeypatch)
