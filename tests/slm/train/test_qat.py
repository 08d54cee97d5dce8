"""Training for int4 or q8: steps and evaluations use the weights of the export, and the checkpoint keeps them exact."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from slm.blocks import BLOCK_RECIPES
from slm.checkpoint import load_checkpoint, save_checkpoint
from slm.console.errors import SlmxError, UsageError
from slm.data.dataset import Dataset
from slm.storage.json_reader import Fields
from slm.train.average import write_average
from slm.train.dry_run import dry_run
from slm.train.evaluate import evaluate
from slm.train.loop import Trainer
from slm.train.plan import Plan, TrainSettings
from slm.train.qat import as_exported, matrices
from slm.train.run_folder import RunFolder
from slm.train.step import ModelWithLoss
from slm.train.train import train
from tests import bundles
from tests.bundles import Slmx
from tests.runs import QUIET, TINY, assert_same_run, interrupted_after, last, tensors
from tests.shapes import LLAMA

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tiny_presets")]
every_variant = pytest.mark.parametrize("variant", BLOCK_RECIPES)


@pytest.fixture
def tuning(settings: TrainSettings, tiny_data: Path, tmp_path: Path) -> TrainSettings:
    """A run of 24 steps that trains a model for int4. Its weights are large enough for 4 bits to change the logits."""
    dataset, model, init = Dataset.open(tiny_data), bundles.random_model(TINY.config), tmp_path / "float"
    with torch.no_grad():
        for weights in matrices(model).values():
            weights.mul_(4)
    init.mkdir()
    save_checkpoint(init, TINY.name, model, dataset.tokenizer, dataset.merges, {})
    return replace(settings, init=init, qat="int4", learning_rate=2e-3, dropout=0.0)


def test_gradients_are_those_at_the_rounded_weights_and_the_float_weights_change(tuning: TrainSettings) -> None:
    trainer = Trainer(tuning, QUIET)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    loss, _ = trainer.learner.compute_gradients(0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.model.state_dict().items())
    gradients = {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}
    assert tuning.init is not None
    plain = Trainer(replace(tuning, qat=None), QUIET)
    plain.learner.net = ModelWithLoss(plain.model, load_checkpoint(tuning.init).model)
    with torch.no_grad():
        for name, weights in matrices(plain.model).items():
            blocks = BLOCK_RECIPES["int4"].quantize(before[name].numpy(), is_table=name == "wte.weight")
            weights.copy_(torch.from_numpy(blocks.weights()))
    assert plain.learner.compute_gradients(0)[0] == loss
    assert gradients.keys() == dict(plain.model.named_parameters()).keys()
    assert all(torch.equal(p.grad, gradients[name]) for name, p in plain.model.named_parameters() if p.grad is not None)


def test_a_model_that_is_its_own_teacher_has_nothing_to_learn_and_the_text_is_no_target() -> None:
    model, teacher = (bundles.random_model(LLAMA) for _ in range(2))
    inputs, targets, others = torch.randint(LLAMA.vocab_size, (3, 2, 20))
    learnt = ModelWithLoss(model, teacher)(inputs, targets)
    probabilities = teacher(inputs).softmax(-1)
    torch.testing.assert_close(learnt, -(probabilities * probabilities.log()).sum(-1).mean())
    learnt.backward()
    assert max(float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None) < 1e-6
    assert torch.equal(ModelWithLoss(model, teacher)(inputs, others), learnt)
    assert not [p for p in teacher.parameters() if p.grad is not None]


@every_variant
def test_the_record_names_the_variant_and_best_holds_the_weights_that_were_evaluated(
    tuning: TrainSettings, tiny_data: Path, variant: str
) -> None:
    assert train(replace(tuning, qat=variant), QUIET)
    best = load_checkpoint(tuning.out)
    assert best.record["plan"]["qat"] == variant
    assert {t.dtype for t in tensors(tuning.out / "best" / "model.safetensors").values()} == {torch.float32}
    with as_exported(best.model, variant):
        evaluated = evaluate(best.model, Dataset.open(tiny_data).valid).bits_per_byte
    assert round(evaluated, 5) == best.record["best"]["bits_per_byte"]


def test_training_for_int4_brings_it_closer_to_the_model_before(tuning: TrainSettings, tiny_data: Path) -> None:
    assert train(replace(tuning, steps=120, eval_every=120), QUIET)
    assert tuning.init is not None
    before, after = load_checkpoint(tuning.init).model, load_checkpoint(tuning.out).model
    inputs, targets = (torch.from_numpy(ids) for ids in Dataset.open(tiny_data).valid.windows(32))
    far, near = ModelWithLoss(copy.deepcopy(before), before), ModelWithLoss(after, before)
    with as_exported(far.model, "int4"), as_exported(after, "int4"):
        least = float(ModelWithLoss(before, before)(inputs, targets))
        assert near(inputs, targets) - least < 0.8 * (far(inputs, targets) - least)


def test_a_run_without_the_model_that_it_imitates_cannot_go_on(tuning: TrainSettings) -> None:
    with interrupted_after(18):
        assert train(tuning, QUIET) is None
    assert [path.name for path in RunFolder(tuning.out).steps()] == ["step-0000000", "step-0000016", "step-0000018"]
    shutil.rmtree(RunFolder(tuning.out).first)
    with pytest.raises(SlmxError) as caught:
        train(TrainSettings(tuning.out, compile=False, precision="fp32", resume=True), QUIET)
    expected = "step-0000000: missing, and this run imitates the model in it; copy the folder of the run again, whole"
    assert str(caught.value).endswith(expected)


@pytest.mark.parametrize("stop_at", [0, 5, 18])
def test_it_resumes_exactly(tuning: TrainSettings, tmp_path: Path, stop_at: int) -> None:
    assert train(replace(tuning, out=tmp_path / "whole"), QUIET)
    with interrupted_after(stop_at):
        assert train(tuning, QUIET) is None
    with pytest.raises(SlmxError, match="the run has qat int4, not q8; leave the option out to resume"):
        train(TrainSettings(tuning.out, resume=True, qat="q8"), QUIET)
    assert train(TrainSettings(tuning.out, compile=False, precision="fp32", resume=True), QUIET)
    assert_same_run(tmp_path / "whole", tuning.out)
    curves = [load_checkpoint(last(out)).record["curve"] for out in (tmp_path / "whole", tuning.out)]
    assert [point["bits_per_byte"] for point in curves[0]] == [point["bits_per_byte"] for point in curves[1]]


def test_a_run_of_an_earlier_version_has_no_variant(tuning: TrainSettings) -> None:
    values = json.loads(json.dumps(asdict(Trainer(tuning, QUIET).plan)))
    assert Plan.read(Fields(values)).qat == "int4"
    assert Plan.read(Fields({name: value for name, value in values.items() if name != "qat"})).qat is None
    with pytest.raises(ValueError, match=r"^plan\.qat is no variant$"):
        Plan.read(Fields(values | {"qat": "int3"}, "plan"))


def test_a_mean_is_evaluated_in_the_variant_and_a_dry_run_leaves_nothing(
    tuning: TrainSettings, tiny_data: Path, tmp_path: Path
) -> None:
    dry_run(tuning, QUIET)
    assert not tuning.out.exists()
    assert train(tuning, QUIET)
    steps = [tuning.out / "step-0000016", tuning.out / "step-0000024"]
    result = write_average(steps, [str(tiny_data)], tmp_path / "mean", False, QUIET)
    mean = load_checkpoint(tmp_path / "mean").model
    with as_exported(mean, "int4"):
        assert evaluate(mean, Dataset.open(tiny_data).valid) == result


def test_a_finished_run_names_the_export_of_its_variant(slmx: Slmx, tuning: TrainSettings) -> None:
    options = ["--steps", "2", "--no-compile", "--precision", "fp32", "--text", tuning.text[0], "--out", "run"]
    ran = slmx("train", "--init", str(tuning.init), "--qat", "q8", *options)
    assert ran.code == 0
    assert ran.stderr.splitlines()[-1] == "now: slmx export --checkpoint run --no-fp32 --q8 --out bundles/run"


def test_what_it_cannot_train_is_refused_in_one_line(slmx: Slmx, tuning: TrainSettings, tmp_path: Path) -> None:
    data = tuning.text[0]
    line = slmx.refuses("train", "--qat", "int4", "--text", data, "--out", "run", code=2)
    assert line == "--qat int4 trains a finished model for this variant: add --init CHECKPOINT"
    line = slmx.refuses("train", "--init", str(tuning.init), "--qat", "int3", "--text", data, "--out", "run", code=2)
    assert line == "--qat: unknown variant 'int3' (did you mean int4?): choose one of int4, q8"
    with pytest.raises(UsageError, match="int3"):
        replace(tuning, qat="int3")
    other = replace(tuning, out=tmp_path / "other", init=None, qat=None, preset="other", steps=2)
    assert train(other, QUIET)
    with pytest.raises(SlmxError) as caught:
        train(replace(tuning, init=other.out, preset=None), QUIET)
    expected = f"{other.out / 'best'}: int4 needs widths that its blocks of 16 divide, not 24; "
    assert str(caught.value) == expected + "export this shape with --int8"
    assert not tuning.out.exists()
