"""A run goes on if its data set was prepared with earlier rules of cleaning. A new run does not take it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from slm.console.errors import SlmxError
from slm.data.dataset import Dataset
from slm.data.prepare import PrepareSettings, prepare
from slm.storage.hashing import sha256_of
from slm.train.loop import Trainer
from slm.train.plan import TrainSettings
from slm.train.train import train
from tests.bundles import Slmx
from tests.runs import QUIET, interrupted_after, make_older

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tiny_presets")]


def test_a_run_goes_on_with_a_data_set_of_earlier_rules(
    settings: TrainSettings, corpus_file: Path, monkeypatch: pytest.MonkeyPatch, slmx: Slmx
) -> None:
    settings = replace(settings, text=(str(corpus_file),))

    def prepare_older(wanted: PrepareSettings, console: object) -> Dataset:
        prepare(wanted, QUIET)
        make_older(wanted.out)
        return Dataset.open(wanted.out)

    with monkeypatch.context() as earlier, interrupted_after(5):
        earlier.setattr("slm.train.start.prepare", prepare_older)
        assert train(settings, QUIET) is None
    held = sha256_of(settings.out / "data" / "dataset.json")
    assert train(replace(settings, resume=True), QUIET)
    for text in ((), ("--text", corpus_file)):
        assert slmx("train", "--resume", "--out", settings.out, *text).code == 0
    assert sha256_of(settings.out / "data" / "dataset.json") == held
    other = replace(settings, out=settings.out.with_name("another run"), text=(str(settings.out / "data"),))
    assert train(replace(other, steps=1), QUIET), "a new run can train on it"


def test_a_new_run_does_not_take_what_was_prepared_there_with_earlier_rules(
    settings: TrainSettings, corpus_file: Path
) -> None:
    settings = replace(settings, text=(str(corpus_file),))
    Trainer(settings, QUIET)
    make_older(settings.out / "data")
    with pytest.raises(
        SlmxError, match=r"or with the rules of an earlier slmx; give the same, or choose another --out$"
    ):
        Trainer(settings, QUIET)
