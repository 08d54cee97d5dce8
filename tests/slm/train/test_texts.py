"""Texts that a training refuses: before the first step, and without a folder of the run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from slm.console.errors import SlmxError
from slm.data.prepare import PrepareSettings, is_held_out, prepare
from slm.train.loop import Trainer
from slm.train.plan import TrainSettings
from slm.train.train import train
from tests.conftest import as_corpus
from tests.runs import QUIET

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tiny_presets")]


def test_a_text_that_is_refused_leaves_no_run_folder(settings: TrainSettings, tmp_path: Path) -> None:
    with pytest.raises(SlmxError, match=r"nowhere\.txt"):
        train(replace(settings, text=(str(tmp_path / "nowhere.txt"),)), QUIET)
    assert not settings.out.exists()


def test_validation_belongs_to_the_data_set(settings: TrainSettings, corpus_file: Path) -> None:
    with pytest.raises(SlmxError, match="holds its own validation split; give --valid to slmx prepare"):
        train(replace(settings, valid=(str(corpus_file),)), QUIET)


def test_too_little_text_for_a_window_is_refused(settings: TrainSettings) -> None:
    with pytest.raises(
        SlmxError, match=r"its train split is .* too short for one context of 1,000,000: prepare more text; a"
    ):
        train(replace(settings, block_size=1_000_000), QUIET)


def test_too_little_text_for_validation_is_refused_before_the_first_step(
    settings: TrainSettings, corpus_file: Path, tmp_path: Path
) -> None:
    valid, data = tmp_path / "valid.txt", tmp_path / "data"
    valid.write_text("One day.")
    prepare(PrepareSettings((str(corpus_file),), "nano", data, valid=(str(valid),), vocab_size=300), QUIET)
    message = rf"^{data}: its valid split is \d tokens, too short for one context of 32: prepare more text; a new"
    with pytest.raises(SlmxError, match=message):
        train(replace(settings, text=(str(data),)), QUIET)
    assert not settings.out.exists()


def test_a_text_is_compared_with_the_context_of_the_run(
    settings: TrainSettings, stories: list[str], tmp_path: Path
) -> None:
    few = tmp_path / "few.txt"
    few.write_text(as_corpus([*stories[:5], next(filter(is_held_out, stories))]), "utf-8")
    from_file = replace(settings, text=(str(few),), preset=None, n_layer=1)
    with pytest.raises(SlmxError, match=r"^the valid split is .* too short for one context of 256: "):
        Trainer(from_file, QUIET)
    assert not settings.out.exists()
    assert Trainer(replace(from_file, block_size=16), QUIET).model.config.block_size == 16
