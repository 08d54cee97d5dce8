"""The mean of checkpoints."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from slm.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from slm.console.errors import SlmxError, UsageError
from slm.data.corpus import TokenStream
from slm.data.dataset import Dataset
from slm.storage.hashing import sha256_of
from slm.train.average import check_alike, verdict, write_average
from slm.train.evaluate import Evaluation, evaluate, read_stream
from slm.train.train import train
from tests.bundles import Slmx
from tests.conftest import run_slmx
from tests.runs import QUIET, brief_run, use_tiny_presets

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tiny_presets")]


@pytest.fixture(scope="module")
def trained(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A run and a fine-tuning of it. Tests must not change them."""
    folder = tmp_path_factory.mktemp("runs")
    settings = brief_run(tiny_data, folder)
    tuned = replace(settings, out=folder / "tuned", init=settings.out, steps=20, learning_rate=5e-3, seed=2)
    with pytest.MonkeyPatch.context() as patch:
        use_tiny_presets(patch)
        assert train(replace(settings, steps=40), QUIET)
        assert train(tuned, QUIET)
    return [settings.out, tuned.out]


@pytest.fixture
def runs(trained: list[Path], tmp_path: Path) -> list[Path]:
    """Copies of both."""
    return [Path(shutil.copytree(run, tmp_path / run.name)) for run in trained]


def with_record(checkpoint: Path, folder: Path, record: dict[str, object]) -> Path:
    """A copy of a checkpoint with another training record."""
    opened = load_checkpoint(checkpoint)
    folder.mkdir()
    save_checkpoint(folder, "custom", opened.model, opened.tokenizer, opened.merges, record)
    return folder


def test_every_weight_is_the_mean_and_the_record_says_so(runs: list[Path], tiny_data: Path, tmp_path: Path) -> None:
    first, second = (load_checkpoint(run) for run in runs)
    stream = Dataset.open(tiny_data).valid
    result, each = write_average(runs, [str(tiny_data)], tmp_path / "mean", False, QUIET)
    assert each == [evaluate(one.model, stream) for one in (first, second)]
    mean = load_checkpoint(tmp_path / "mean")
    for name, tensor in mean.model.state_dict().items():
        expected = (first.model.state_dict()[name] + second.model.state_dict()[name]) / 2
        torch.testing.assert_close(tensor, expected, rtol=1e-3, atol=1e-6)
    assert evaluate(mean.model, stream).bits_per_byte == pytest.approx(result.bits_per_byte, abs=1e-6)
    assert mean.record["best"] == {"step": 20, "bits_per_byte": round(result.bits_per_byte, 5)}
    assert mean.record["average_of"] == [sha256_of(run / "best" / "config.json") for run in runs]
    assert mean.record["plan"] == second.record["plan"]


def test_a_weight_beyond_float16_keeps_the_mean_in_float32(runs: list[Path], tiny_data: Path, tmp_path: Path) -> None:
    opened = load_checkpoint(runs[1])
    with torch.no_grad():
        opened.model.wte.weight[5, 0] = 2e5
    (tmp_path / "large").mkdir()
    save_checkpoint(tmp_path / "large", opened.preset, opened.model, opened.tokenizer, opened.merges, opened.record)
    result, _ = write_average([runs[0], tmp_path / "large"], [str(tiny_data)], tmp_path / "mean", False, QUIET)
    mean = load_checkpoint(tmp_path / "mean")
    assert mean.model.wte.weight[5, 0].item() == pytest.approx(1e5, rel=1e-3)
    assert evaluate(mean.model, Dataset.open(tiny_data).valid).bits_per_byte == pytest.approx(result.bits_per_byte)


def test_one_checkpoint_under_two_names_has_no_mean(
    runs: list[Path], tiny_data: Path, tmp_path: Path, slmx: Slmx
) -> None:
    first, second = runs
    copied = Path(shutil.copytree(first / "best", tmp_path / "a çopy"))
    (tmp_path / "link").symlink_to(first)
    for other in (first, first / "best", first / ".." / first.name, tmp_path / "link", copied):
        line = slmx.refuses_unchanged("average", first, second, other, "--text", tiny_data, "--out", "mean", code=2)
        found = load_checkpoint(other).folder
        assert line == f"{found}: the same checkpoint as {first / 'best'}; name each one once"


def test_one_checkpoint_twice_has_no_mean(tiny_checkpoint: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    with pytest.raises(UsageError, match="name each one once"):
        check_alike([checkpoint, checkpoint])


def test_others_are_refused_and_nothing_is_replaced(runs: list[Path], tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(SlmxError, match="has another shape or tokenizer than"):
        check_alike([load_checkpoint(tiny_checkpoint), load_checkpoint(runs[0])])
    ran = run_slmx("average", *runs, "--text", "none.txt", "--out", tmp_path / "mean", cwd=tmp_path)
    assert ran.returncode == 1
    assert ran.stderr == "slmx: none.txt: cannot read the text (No such file or directory); check the path\n"
    assert not (tmp_path / "mean").exists()


def test_the_record_has_the_hashes_of_what_was_loaded(
    tiny_checkpoint: Path, corpus_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "changing"))
    config = folder / "config.json"
    before = sha256_of(config)

    def read_late(text: Sequence[str], checkpoint: Checkpoint) -> TokenStream:
        config.write_bytes(config.read_bytes() + b"\n")
        return read_stream(text, checkpoint)

    monkeypatch.setattr("slm.train.average.read_stream", read_late)
    other = with_record(tiny_checkpoint, tmp_path / "other", {"seed": 2})
    write_average([other, folder], [str(corpus_file)], tmp_path / "mean", False, QUIET)
    assert load_checkpoint(tmp_path / "mean").record["average_of"] == [sha256_of(other / "config.json"), before]


def test_one_checkpoint_has_no_mean(tiny_checkpoint: Path, corpus_file: Path, tmp_path: Path, slmx: Slmx) -> None:
    line = slmx.refuses("average", tiny_checkpoint, "--text", corpus_file, "--out", tmp_path / "mean", code=2)
    assert line == "one checkpoint has no mean: name two or more"
    assert not (tmp_path / "mean").exists()


@pytest.mark.parametrize(
    ("mean", "words", "better"),
    [
        (0.69996, "b alone is better", "b"),
        (0.69994, "as good as b alone", None),
        (0.6998, "better than each of them", None),
    ],
)
def test_the_verdict_is_that_of_the_figures_as_they_are_shown(mean: float, words: str, better: str | None) -> None:
    each = [Evaluation(1.0, bits, 100) for bits in (0.71, 0.6999)]
    assert verdict(Evaluation(1.0, mean, 100), each, [Path("a"), Path("b")]) == (words, better and Path(better))


@pytest.mark.heavy
def test_what_is_there_is_replaced_by_force_alone(runs: list[Path], tiny_data: Path, tmp_path: Path) -> None:
    arguments: list[str | Path] = ["average", *runs, "--text", tiny_data, "--out", tmp_path / "mean"]
    ran = run_slmx(*arguments, cwd=tmp_path)
    assert ran.returncode == 0
    told = ran.stderr.splitlines()[-len(runs) - 2 :]
    assert [line.split(": ")[0] for line in told] == [*map(str, runs), "the mean", "now"]
    assert re.search(r" bits per byte, (better than each of them|as good as .* alone|.* alone is better)$", told[-2])
    before = sha256_of(tmp_path / "mean" / "config.json")
    arguments[1:3] = runs[::-1]
    ran = run_slmx(*arguments, cwd=tmp_path)
    assert ran.returncode == 1
    assert "--force" in ran.stderr
    assert sha256_of(tmp_path / "mean" / "config.json") == before
    assert run_slmx(*arguments, "--force", cwd=tmp_path).returncode == 0
    swapped = [sha256_of(run / "best" / "config.json") for run in runs[::-1]]
    assert load_checkpoint(tmp_path / "mean").record["average_of"] == swapped


@pytest.mark.parametrize("record", [{"imported": {"folder": "gpt2"}}, {"curve": 5, "steps_done": 7}])
def test_models_without_a_loss_curve_have_a_mean_too(
    tiny_checkpoint: Path, corpus_file: Path, tmp_path: Path, record: dict[str, object]
) -> None:
    imported = with_record(tiny_checkpoint, tmp_path / "imported", record)
    result, _ = write_average([tiny_checkpoint, imported], [str(corpus_file)], tmp_path / "mean", False, QUIET)
    best = {"step": record.get("steps_done", 0), "bits_per_byte": round(result.bits_per_byte, 5)}
    written = load_checkpoint(tmp_path / "mean").record
    assert (written["best"], written["curve"]) == (best, [best])
