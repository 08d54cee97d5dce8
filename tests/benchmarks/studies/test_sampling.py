"""The study of sampling settings, on a tiny model that a shipped one scores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.evaluation.continuations import Excerpt, Vocabulary
from benchmarks.program import run
from benchmarks.studies import sampling
from benchmarks.studies.sampling import GRID, SCORED, Text, TextFigures, name_of, scored_bits
from runtimes.types import SamplingParams
from slm.checkpoint import Checkpoint, load_checkpoint
from slm.folder_kind import PRETRAINED
from tests import bundles
from tests.conftest import NAMES, as_corpus

SHARED = Path(__file__).parents[4] / "shared" / "data" / "tinystories-valid.txt"
OPENING = "Once upon a time, there was a little girl named Lily."
# It fits the context of 64 tokens of the tiny model.
SHORT = "One day, {name} went to the park. {name} saw a big dog. The dog had a red ball. They were happy and went home."
ENDING = " She loved to play outside with her friends."


@pytest.fixture(scope="module")
def scorer() -> Checkpoint:
    return load_checkpoint(PRETRAINED / "micro")


def study(monkeypatch: pytest.MonkeyPatch, *args: str | Path) -> int:
    """Runs the study as its command line does, and returns its exit code."""
    monkeypatch.setattr("sys.argv", [sampling.__file__, *map(str, args)])
    with pytest.raises(SystemExit) as exit_:
        run(sampling.main)
    return int(exit_.value.code or 0)


def test_the_grid_has_the_default_and_every_setting_once() -> None:
    names = [name_of(one) for one in GRID]
    assert len(set(names)) == len(names) >= 16
    assert SamplingParams() in GRID
    assert "greedy" in names


def test_the_scorer_prefers_a_true_ending_after_its_opening(scorer: Checkpoint) -> None:
    true = scored_bits(scorer, OPENING, ENDING)
    assert 0 < true < scored_bits(scorer, OPENING, " outside friends play her with to loved She.")
    assert true < scored_bits(scorer, "The ship sank.", ENDING)
    endless = ENDING * scorer.model.config.block_size
    assert scored_bits(scorer, OPENING, endless) > 0


def test_a_short_text_has_no_figures_except_its_end(scorer: Checkpoint) -> None:
    excerpts = [Excerpt(OPENING, ENDING)] * 3
    meter = TextFigures(scorer, excerpts, Vocabulary.of([OPENING + ENDING]), words=8)
    found = meter.measure([Text(ENDING, ended=True), Text(" She ran.", ended=True), Text(ENDING[:-1], ended=True)])
    assert found.shape == (3, len(meter.figures))
    assert [list(row).count(row[0]) > 0 for row in found] == [True, False, True]
    assert found[:, -1].tolist() == [1, 1, 0]
    assert found[0, meter.figures.index(SCORED)] == pytest.approx(scored_bits(scorer, OPENING, ENDING[:-1]))


@pytest.mark.slow
def test_the_study_writes_its_table_and_its_figures(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, text, out = bundles.tiny_bundle(tiny_checkpoint), tmp_path / "stories.txt", tmp_path / "found.json"
    text.write_text(as_corpus([SHORT.format(name=name) for name in NAMES]), "utf-8")
    args = ("--bundle", bundle, "--scorer", PRETRAINED / "nano", "--text", text, "--stories", "2")
    assert study(monkeypatch, *args, "--words", "8", "--out", out) == 0
    printed = capsys.readouterr().out
    found = json.loads(out.read_text("utf-8"))
    assert found["settings"]["text"]["stories"] == 2
    assert "--words 8" in found["command"]
    assert set(found["results"]["by setting"]) == {name_of(one) for one in GRID}
    values = [row["distance"]["value"] for row in found["results"]["by setting"].values()]
    assert values == sorted(values)
    chance = next(iter(found["results"]["by setting"].values()))["distance"]["chance"]
    assert f"the distance of texts of the same distribution is not 0 but about {chance:.2f}" in printed
    rows = [line for line in printed.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows[3:]] == list(found["results"]["by setting"])
    again = tmp_path / "again.json"
    assert study(monkeypatch, *args, "--words", "8", "--out", again) == 0
    assert json.loads(again.read_text("utf-8"))["results"] == found["results"]


def test_wrong_arguments_are_one_line(
    tiny_checkpoint: Path,
    corpus_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    micro = PRETRAINED / "micro"
    out = tmp_path / "found.json"
    bundle = ("--bundle", bundles.tiny_bundle(tiny_checkpoint))
    refused = {
        ("--scorer", tiny_checkpoint, *bundle, "--out", out): (2, "the scorer has the weights of the model"),
        ("--scorer", micro, *bundle, "--out", tmp_path / "no" / "found.json"): (2, "its folder does not exist"),
        ("--scorer", micro, *bundle, "--out", out, "--words", "900"): (1, "give a smaller --words"),
        ("--scorer", tmp_path, *bundle, "--out", out): (1, "no slmx checkpoint here"),
    }
    for args, (code, message) in refused.items():
        assert study(monkeypatch, "--text", corpus_file, *args) == code
        printed = capsys.readouterr().err
        assert printed.startswith("benchmarks.studies.sampling: ")
        assert message in printed
        assert len(printed.splitlines()) == 1
    assert not out.exists()


@pytest.mark.heavy
@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_file(), reason="the validation text is not part of this repository")
def test_greedy_is_farther_from_true_stories_than_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.studies.sampling.GRID", (SamplingParams(), SamplingParams(temperature=0)))
    out = tmp_path / "found.json"
    assert study(monkeypatch, "--scorer", "micro", "--text", SHARED, "--stories", "80", "--out", out) == 0
    found = json.loads(out.read_text("utf-8"))["results"]["by setting"]
    assert list(found)[1] == "greedy"
    greedy = found["greedy"]["distance"]
    assert greedy["excess"] > 3 * greedy["excess_error"]
