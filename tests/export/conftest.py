"""Fixtures that make exports fast in tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import export.exporter
from runtimes.bundle.variants import VARIANTS
from tests import bundles


@pytest.fixture
def quick() -> Iterator[None]:
    """Exports read few tokens."""
    with bundles.brief_checks():
        yield


@pytest.fixture
def ready_graph(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports reuse the fp32 graph of the tiny checkpoint, which never changes, from an earlier bundle."""
    made = bundles.tiny_bundle(tiny_checkpoint) / VARIANTS["fp32"].file
    monkeypatch.setattr(export.exporter, "export_onnx", lambda model, path: path.write_bytes(made.read_bytes()))
