"""Training with teachers: the target is the mean prediction of finished models. A run resumes only with the same."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from slm.checkpoint import load_checkpoint, save_checkpoint
from slm.console.errors import SlmxError, UsageError
from slm.console.signals import StopFlag
from slm.data.dataset import Dataset
from slm.presets import GPTConfig
from slm.train.loop import Trainer
from slm.train.plan import TrainSettings
from slm.train.start import find_finished
from slm.train.step import ModelWithLoss
from slm.train.summary import flops_per_token
from slm.train.teachers import MeanLogits
from slm.train.train import train
from tests import bundles
from tests.runs import OTHER, QUIET, TINY, assert_same_run, interrupted_after
from tests.shapes import LLAMA

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tiny_presets")]
AGAIN: dict[str, Any] = {"compile": False, "precision": "fp32", "resume": True}


def teacher_of(folder: Path, data: Path, config: GPTConfig) -> Path:
    """Writes a checkpoint of random weights that are large enough for its predictions to differ from chance."""
    dataset, model = Dataset.open(data), bundles.random_model(config)
    with torch.no_grad():
        for weights in model.parameters():
            weights.mul_(3)
    folder.mkdir()
    save_checkpoint(folder, "other", model, dataset.tokenizer, dataset.merges, {})
    return folder


@pytest.fixture
def taught(settings: TrainSettings, tiny_data: Path, tmp_path: Path) -> TrainSettings:
    """A run of 24 steps with two teachers of different shapes."""
    shapes = {"first; één": TINY.config, "second one": OTHER.config}
    return replace(settings, teacher=tuple(teacher_of(tmp_path / name, tiny_data, c) for name, c in shapes.items()))


def test_the_target_is_the_mean_of_the_log_probabilities_and_the_text_after_the_first_token() -> None:
    model, *teachers = (bundles.random_model(LLAMA) for _ in range(3))
    inputs, targets, others = torch.randint(LLAMA.vocab_size, (3, 2, 20))
    learnt = ModelWithLoss(model, MeanLogits(teachers), False)(inputs, targets)
    wanted = torch.stack([teacher(inputs).log_softmax(-1) for teacher in teachers]).mean(0).softmax(-1)
    wanted[:, 0] = F.one_hot(targets[:, 0], LLAMA.vocab_size)
    torch.testing.assert_close(learnt, -(wanted * model(inputs).log_softmax(-1)).sum(-1).mean())
    others[:, 0] = targets[:, 0]
    assert torch.equal(ModelWithLoss(model, MeanLogits(teachers), False)(inputs, others), learnt)


def test_a_teacher_that_does_not_know_how_texts_begin_teaches_no_wrong_beginning() -> None:
    """The teacher predicts token 7 after the first token of a window, whatever that token is."""
    begin, model = 3, bundles.random_model(LLAMA)

    class Sink(MeanLogits):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            logits = super().forward(ids)
            logits[:, 0] = 0
            logits[:, 0, 7] = 20
            return logits

    learner = ModelWithLoss(model, Sink([bundles.random_model(LLAMA)]), False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    inputs, targets = torch.randint(LLAMA.vocab_size, (2, 4, 20))
    inputs[:, 0], targets[:, 0] = begin, 5
    for _ in range(20):
        optimizer.zero_grad()
        learner(inputs, targets).backward()
        optimizer.step()
    assert int(model(torch.tensor([[begin]]))[0, 0].argmax()) == 5


def test_a_run_comes_nearer_to_its_teachers_and_the_record_names_them(taught: TrainSettings, tiny_data: Path) -> None:
    teachers = MeanLogits([load_checkpoint(folder).model for folder in taught.teacher])
    before = Trainer(replace(taught, out=taught.out / "unused"), QUIET).model.eval()
    assert train(replace(taught, steps=60, eval_every=60), QUIET)
    inputs, targets = (torch.from_numpy(ids) for ids in Dataset.open(tiny_data).valid.windows(32))
    after = load_checkpoint(taught.out)
    with torch.no_grad():
        far, near = (float(ModelWithLoss(model, teachers, False)(inputs, targets)) for model in (before, after.model))
    assert near < far - 0.1
    assert [teacher["preset"] for teacher in after.record["teachers"]] == ["other", "other"]
    assert len({teacher["config_sha256"] for teacher in after.record["teachers"]}) == 2
    flops = json.loads((taught.out / "summary.json").read_text())["flops"]
    config = after.model.config
    forward = [flops_per_token(replace(shape, vocab_size=300), ()) // 3 for shape in (TINY.config, OTHER.config)]
    assert flops == after.record["tokens_seen"] * (flops_per_token(config, ()) + sum(forward))


@pytest.mark.parametrize("stop_at", [0, 18])
def test_it_resumes_exactly_without_naming_them_again(taught: TrainSettings, tmp_path: Path, stop_at: int) -> None:
    assert train(replace(taught, out=tmp_path / "whole"), QUIET)
    with interrupted_after(stop_at):
        assert train(taught, QUIET) is None
    assert train(TrainSettings(taught.out, **AGAIN), QUIET)
    assert_same_run(tmp_path / "whole", taught.out)


def test_it_goes_on_only_with_the_same_teachers(taught: TrainSettings, tmp_path: Path) -> None:
    with interrupted_after(5):
        assert train(taught, QUIET) is None
    first, second = taught.teacher
    same = "name the same checkpoints with --teacher, in the same order"
    for others, said in (
        ((first,), f"{taught.out}: the run was started with 2 teachers, not 1; {same}"),
        ((second, first), f"{second}: not the teacher that the run was started with; {same}"),
    ):
        with pytest.raises(SlmxError) as caught:
            train(TrainSettings(taught.out, teacher=others, **AGAIN), QUIET)
        assert str(caught.value) == said
    file = taught.out / "run.json"
    remembered = file.read_text("utf-8")
    for strange, said in (([str(first)] * 3000, "not 3000; "), ("nano", "not 0; "), ([5], "not 0; ")):
        file.write_text(json.dumps(json.loads(remembered) | {"teachers": strange}), "utf-8")
        with pytest.raises(SlmxError, match=said):
            train(TrainSettings(taught.out, **AGAIN), QUIET)
    file.write_text(remembered, "utf-8")
    moved = tmp_path / "moved"
    shutil.move(first, moved)
    with pytest.raises(SlmxError) as caught:
        train(TrainSettings(taught.out, **AGAIN), QUIET)
    missing = f"{first}: no slmx checkpoint here (no such file or folder); slmx train --text STORIES --out '{first}'"
    begin = "a teacher of this run cannot be read; name its new place with --teacher, or mend it: "
    assert str(caught.value) == f"{begin}{missing} makes one"
    assert train(TrainSettings(taught.out, teacher=(moved, second), **AGAIN), QUIET)
    with pytest.raises(SlmxError, match="not the teacher that the run was started with"):
        find_finished(TrainSettings(taught.out, teacher=(second, moved), resume=True), QUIET)


def test_a_teacher_is_what_it_was_when_it_was_loaded(taught: TrainSettings) -> None:
    trainer = Trainer(taught, QUIET)
    before = trainer.record()["teachers"]
    for folder in taught.teacher:
        shutil.rmtree(folder)
    assert trainer.record()["teachers"] == before
    assert trainer.run(StopFlag())


def test_a_shipped_teacher_is_found_again(
    settings: TrainSettings, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrained = settings.out.parent / "pretrained"
    pretrained.mkdir()
    shipped = teacher_of(pretrained / "shipped", tiny_data, TINY.config)
    monkeypatch.setattr("slm.folder_kind.PRETRAINED", pretrained)
    with interrupted_after(5):
        assert train(replace(settings, teacher=(Path("shipped"),)), QUIET) is None
    assert json.loads((settings.out / "run.json").read_bytes())["teachers"] == [str(shipped)]
    assert train(TrainSettings(settings.out, **AGAIN), QUIET)


def test_a_run_without_a_teacher_gets_none(settings: TrainSettings, taught: TrainSettings) -> None:
    with interrupted_after(5):
        assert train(settings, QUIET) is None
    with pytest.raises(SlmxError, match=r"the run has no teacher; leave out --teacher to resume$"):
        train(TrainSettings(settings.out, teacher=taught.teacher, **AGAIN), QUIET)


def test_teachers_that_cannot_teach_are_refused_before_the_first_step(
    settings: TrainSettings, tiny_data: Path, tmp_path: Path
) -> None:
    short = teacher_of(tmp_path / "short", tiny_data, replace(TINY.config, block_size=16))
    with pytest.raises(
        SlmxError, match=r"short: a teacher needs a context of at least 32 tokens, not 16; lower --block"
    ):
        train(replace(settings, teacher=(short,)), QUIET)
    nano = Path("nano")
    with pytest.raises(SlmxError, match=r"a teacher needs the tokenizer of the training text; prepare the text with"):
        train(replace(settings, teacher=(nano,)), QUIET)
    good = teacher_of(tmp_path / "good", tiny_data, TINY.config)
    text = tmp_path / "stories.txt"
    text.write_text("A story.", "utf-8")
    for taught in (
        replace(settings, text=(str(text),), teacher=(good, nano)),
        replace(settings, text=(str(text),), teacher=(nano,), init=good, preset=None),
    ):
        with pytest.raises(SlmxError, match=r"nano: has another tokenizer than .*good; a model and its teachers need"):
            train(taught, QUIET)
    with pytest.raises(UsageError, match=r"^--qat int4 imitates the checkpoint of --init: drop --teacher$"):
        replace(settings, init=good, qat="int4", teacher=(good,))
    assert not settings.out.exists()


def test_a_text_is_prepared_with_the_tokenizer_of_the_teacher(
    settings: TrainSettings, taught: TrainSettings, corpus_file: Path
) -> None:
    assert train(replace(settings, text=(str(corpus_file),), teacher=taught.teacher, steps=2), QUIET)
    assert load_checkpoint(settings.out).tokenizer == load_checkpoint(taught.teacher[0]).tokenizer
