"""Quality on a text: every runner and peer reads it in whole windows."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch

from benchmarks.quality import text_quality
from benchmarks.quality.text_quality import ReadWindows, from_manifest, quality_on
from benchmarks.run.targets import target_of_bundle
from export.checks.fidelity import measure_fidelity
from export.checks.float_model import FloatModel
from runtimes.bundle.store import Bundle
from runtimes.engine.arrays import IdArray
from tests import bundles

pytestmark = pytest.mark.slow


def test_all_are_read_in_whole_windows_as_peers_are(
    tiny_checkpoint: Path, corpus_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways: list[bool] = []

    def doubled(session: object, reference: object, bits: float, token_by_token: bool, name: str) -> object:
        ways.append(token_by_token)
        return measure_fidelity(session, reference, bits * 0.5, token_by_token, name)  # type: ignore[arg-type]

    monkeypatch.setattr(text_quality, "measure_fidelity", doubled)
    monkeypatch.setattr(text_quality, "FloatModel", functools.partial(FloatModel, max_tokens=bundles.CHECKED_TOKENS))
    monkeypatch.setattr(text_quality, "bleu", lambda target, text: None)
    target = target_of_bundle(Bundle.open(bundles.tiny_bundle(tiny_checkpoint)), "x", tmp_path / "work", trusted=False)
    found = quality_on(target, ("torch eager", "fp32", "int8"), corpus_file, {})
    assert ways == [False, False]
    assert found.runner_bpb_increase["int8"] > 0.9
    assert found.runner_bpb_increase["torch eager"] == 0


def test_a_peer_that_reads_the_same_windows_has_a_figure_beside_the_float_models(
    tiny_checkpoint: Path, corpus_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_quality, "FloatModel", functools.partial(FloatModel, max_tokens=bundles.CHECKED_TOKENS))
    monkeypatch.setattr(text_quality, "bleu", lambda target, text: None)
    target = target_of_bundle(Bundle.open(bundles.tiny_bundle(tiny_checkpoint)), "x", tmp_path / "work", trusted=False)
    model = target.checkpoint.model

    def read(inputs: IdArray, targets: IdArray, worse: float = 1) -> float:
        with torch.inference_mode():
            logits = model(torch.from_numpy(inputs)).flatten(0, 1)
        return worse * float(
            torch.nn.functional.cross_entropy(logits, torch.from_numpy(targets).flatten(), reduction="sum")
        )

    peers: dict[str, ReadWindows] = {
        "same": read,
        "worse": functools.partial(read, worse=1.1),
        "broken": lambda inputs, targets: None,
    }
    found = quality_on(target, ("torch eager",), corpus_file, peers)
    assert found.bits_per_byte is not None
    assert found.runner_bits_per_byte["same"] == pytest.approx(found.bits_per_byte)
    assert found.runner_bpb_increase["same"] == pytest.approx(0, abs=1e-5)
    assert found.runner_bpb_increase["worse"] == pytest.approx(0.1, abs=1e-5)
    assert "broken" not in found.runner_bpb_increase


def test_a_manifest_gives_the_figures_of_its_variants(tiny_checkpoint: Path) -> None:
    bundle = Bundle.open(bundles.tiny_bundle(tiny_checkpoint))
    found = from_manifest(bundle)
    quality = bundle.manifest.variants["int8"].figures.quality
    assert quality is not None
    assert quality.decode is not None
    assert found.bits_per_byte == quality.float_bits_per_byte
    windows = quality.windows.bpb_increase  # as peers read it
    assert found.runner_bpb_increase == {"torch eager": 0, "torch compiled": 0, "fp32": 0, "int8": windows}
