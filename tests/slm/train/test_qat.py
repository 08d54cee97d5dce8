"""Training for a variant: steps and evaluations round as its export does, and the checkpoint keeps the weights."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch

from slm.blocks import BLOCK_RECIPES
from slm.checkpoint import load_checkpoint, save_checkpoint
from slm.console.errors import SlmxError, UsageError
from slm.data.dataset import Dataset
from slm.presets import QAT_VARIANTS
from slm.storage.json_reader import Fields
from slm.train.average import write_average
from slm.train.dry_run import dry_run
from slm.train.evaluate import evaluate
from slm.train.loop import Trainer
from slm.train.plan import Plan, TrainSettings
from slm.train.qat import as_exported, matrices, rounded_to_8_bits
from slm.train.run_folder import RunFolder
from slm.train.step import ModelWithLoss
from slm.train.train import train
from tests import bundles
from tests.bundles import Slmx
from tests.runs import QUIET, TINY, assert_same_run, interrupted_after, last, tensors
from tests.shapes import LLAMA

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tiny_presets")]
every_variant = pytest.mark.parametrize("variant", QAT_VARIANTS)


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
    plain.learner.net = ModelWithLoss(plain.model, load_checkpoint(tuning.init).model, True)
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
    learnt = ModelWithLoss(model, teacher, True)(inputs, targets)
    probabilities = teacher(inputs).softmax(-1)
    torch.testing.assert_close(learnt, -(probabilities * probabilities.log()).sum(-1).mean())
    learnt.backward()
    assert max(float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None) < 1e-6
    assert torch.equal(ModelWithLoss(model, teacher, True)(inputs, others), learnt)
    assert not [p for p in teacher.parameters() if p.grad is not None]


@every_variant
def test_the_record_names_the_variant_and_best_holds_the_weights_that_were_evaluated(
    tuning: TrainSettings, tiny_data: Path, variant: str
) -> None:
    assert train(replace(tuning, qat=variant), QUIET)
    best = load_checkpoint(tuning.out)
    assert best.record["plan"]["qat"] == variant
    stored = torch.float32 if variant in BLOCK_RECIPES else torch.float16
    assert {t.dtype for t in tensors(tuning.out / "best" / "model.safetensors").values()} == {stored}
    with as_exported(best.model, variant):
        evaluated = evaluate(best.model, Dataset.open(tiny_data).valid).bits_per_byte
    within = 1e-5 if variant in BLOCK_RECIPES else 1e-3  # float16 changes what is rounded afterwards
    assert evaluated == pytest.approx(best.record["best"]["bits_per_byte"], abs=within)


def test_training_for_int4_brings_it_closer_to_the_model_before(tuning: TrainSettings, tiny_data: Path) -> None:
    assert train(replace(tuning, steps=120, eval_every=120), QUIET)
    assert tuning.init is not None
    before, after = load_checkpoint(tuning.init).model, load_checkpoint(tuning.out).model
    inputs, targets = (torch.from_numpy(ids) for ids in Dataset.open(tiny_data).valid.windows(32))
    far, near = ModelWithLoss(copy.deepcopy(before), before, True), ModelWithLoss(after, before, True)
    with as_exported(far.model, "int4"), as_exported(after, "int4"):
        least = float(ModelWithLoss(before, before, True)(inputs, targets))
        assert near(inputs, targets) - least < 0.8 * (far(inputs, targets) - least)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shift", [-5.0, 0.0, 5.0])
def test_activations_are_rounded_as_onnxruntime_rounds_them(shift: float, dtype: torch.dtype) -> None:
    windows = (torch.randn(2, 7, 5) + shift).to(dtype)
    windows[1] = 0
    node = onnx.helper.make_node("DynamicQuantizeLinear", ["x"], ["y", "scale", "zero"])
    back = onnx.helper.make_node("DequantizeLinear", ["y", "scale", "zero"], ["z"])
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [7, 5]) for name in ("x", "z")]
    graph = onnx.helper.make_graph([node, back], "round", ends[:1], ends[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = [torch.from_numpy(session.run(None, {"x": window.float().numpy()})[0]) for window in windows]
    torch.testing.assert_close(rounded_to_8_bits(windows), torch.stack(wanted).to(dtype))


@pytest.mark.parametrize(("number", "error"), [(0.4, 0.0), (0.43, 4 - 4.3)])
def test_the_error_of_rounding_has_a_gradient_at_the_number_that_sets_the_step(number: float, error: float) -> None:
    x = torch.tensor([[[number, 25.5, 3.0]]], requires_grad=True)  # the step is 0.1
    (gradient,) = torch.autograd.grad(rounded_to_8_bits(x)[0, 0, 0], x)
    torch.testing.assert_close(gradient, torch.tensor([[[1.0, error / 255, 0.0]]]), atol=1e-5, rtol=0)


def test_compiled_code_of_bfloat16_has_finite_gradients() -> None:
    gate, values = (torch.randn(2, 20, 32, dtype=torch.bfloat16, requires_grad=True) for _ in range(2))

    @torch.compile
    def rounded(gate: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return rounded_to_8_bits(torch.nn.functional.silu(gate) * values).float().square().sum()

    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(rounded(gate, values), (gate, values)))


def test_for_int8_a_model_rounds_inside_the_block_only() -> None:
    model, ids = bundles.random_model(LLAMA), torch.randint(LLAMA.vocab_size, (2, 20))
    with torch.inference_mode():
        before = model(ids)
        with as_exported(model, "int8"):
            inside = model(ids)
        after = model(ids)
    assert torch.equal(before, after)
    assert not torch.equal(before, inside)
    torch.testing.assert_close(inside, before, atol=0.5, rtol=0)


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
    result, _ = write_average(steps, [str(tiny_data)], tmp_path / "mean", False, QUIET)
    mean = load_checkpoint(tmp_path / "mean").model
    with as_exported(mean, "int4"):
        assert evaluate(mean, Dataset.open(tiny_data).valid) == result


@pytest.mark.parametrize(("variant", "flags"), [("q8", "--no-fp32 --q8"), ("int8", "--int8")])
def test_a_finished_run_names_the_export_of_its_variant(
    slmx: Slmx, tuning: TrainSettings, variant: str, flags: str
) -> None:
    options = ["--steps", "2", "--no-compile", "--precision", "fp32", "--text", tuning.text[0], "--out", "run"]
    ran = slmx("train", "--init", str(tuning.init), "--qat", variant, *options)
    assert ran.code == 0
    assert ran.stderr.splitlines()[-1] == f"now: slmx export --checkpoint run {flags} --out bundles/run"


def test_what_it_cannot_train_is_refused_in_one_line(slmx: Slmx, tuning: TrainSettings, tmp_path: Path) -> None:
    data = tuning.text[0]
    line = slmx.refuses("train", "--qat", "int4", "--text", data, "--out", "run", code=2)
    assert line == "--qat int4 trains a finished model for this variant: add --init CHECKPOINT"
    line = slmx.refuses("train", "--init", str(tuning.init), "--qat", "int16", "--text", data, "--out", "run", code=2)
    assert line == "--qat: unknown variant 'int16' (did you mean int8?): choose one of int8, int4, q8"
    with pytest.raises(UsageError, match="int3"):
        replace(tuning, qat="int3")
    other = replace(tuning, out=tmp_path / "other", init=None, qat=None, preset="other", steps=2)
    assert train(other, QUIET)
    with pytest.raises(SlmxError) as caught:
        train(replace(tuning, init=other.out, preset=None), QUIET)
    expected = f"{other.out / 'best'}: int4 needs widths that its blocks of 16 divide, not 24; "
    assert str(caught.value) == expected + "leave --qat out, or use --qat int8"
    with pytest.raises(SlmxError, match=r"heads of 12 channels, which only --portable can store, and int8 needs"):
        train(replace(tuning, init=other.out, preset=None, qat="int8"), QUIET)
    assert not tuning.out.exists()
