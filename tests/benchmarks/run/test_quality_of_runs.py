"""The quality of a text in the reports of `slmx bench`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.peers import PeerKind
from benchmarks.quality.text_quality import ReadWindows
from benchmarks.run import bench
from benchmarks.run.bench import Bench
from benchmarks.run.progress import Meter
from benchmarks.run.targets import Target
from slm.console.notice import Log
from tests import bundles
from tests.benchmarks.run.brief import brief, by_case, interrupt_after

pytestmark = pytest.mark.slow


def test_a_text_gives_quality(bundle: Path, corpus_file: Path, tmp_path: Path, meter: Meter) -> None:
    settings = replace(brief(tmp_path / "out", bundle, "torch eager", "fp32", "int8"), quick=True, text=corpus_file)
    run = Bench(settings, meter)
    run.run()
    report = run.report()
    (model,), found = report.models.values(), by_case(report)
    assert report.text is not None
    assert report.text.startswith("the beginning of stories.txt: 16,384 tokens")
    assert model.bits_per_byte is not None
    assert model.perplexity is not None
    assert model.bleu is not None
    assert 0 < model.bits_per_byte < 4
    assert 1 < model.perplexity < 400
    assert 0 < model.bleu < 100
    assert found["torch eager", 0, 1].bits_per_byte == model.bits_per_byte
    assert found["fp32", 0, 1].bpb_increase == pytest.approx(0, abs=1e-5)
    assert found["int8", 0, 1].bpb_increase != 0


def test_a_peer_whose_quality_is_unknown_is_named_also_in_a_run_that_went_on(
    bundle: Path, corpus_file: Path, tmp_path: Path, meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = "the quality of llama.cpp Q8_0 is unknown: reading the text failed"

    def failing(target: Target, peers: list[PeerKind], log: Log) -> dict[str, ReadWindows]:
        log(unknown)
        return {}

    settings = replace(brief(tmp_path / "out", bundle, "fp32"), text=corpus_file, quick=True)
    monkeypatch.setattr(bench, "readers", failing)
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(1, patch)
        with pytest.raises(KeyboardInterrupt):
            Bench(settings, meter).run()
    monkeypatch.setattr(bench, "quality_on", lambda *_: pytest.fail("the text is read again"))
    run = Bench(settings, meter)
    run.run()
    assert run.report().warnings == [unknown]


def test_bundles_whose_quality_is_of_different_texts_say_so(
    bundle: Path, tmp_path: Path, meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = bundles.copy_of(bundle, tmp_path / "other")
    settings = replace(brief(tmp_path / "out", bundle, "fp32"), bundles=(bundle, other), quick=True)
    run = Bench(settings, meter)
    run.run()
    assert str(run.report().text).startswith("as the bundle's manifest says: ")
    monkeypatch.setattr(bench, "text_of_manifest", lambda found: f"stories of {found.path.name}")
    run = Bench(replace(settings, out=tmp_path / "again"), meter)
    run.run()
    assert run.report().text == f"{bundle}: stories of {bundle.name}; {other}: stories of other"
