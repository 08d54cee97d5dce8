"""The exported graph: its inputs and outputs, the tensors that it stores, and the same results as PyTorch."""

from __future__ import annotations

import getpass
import sys
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import numpy_helper

from export.checks.operators import optimized_nodes
from export.checks.parity import open_forward, parity, parity_cases
from export.formats.fused import OPSET, export_onnx
from export.formats.graph import IR_VERSION, TOKEN_TABLE
from export.formats.quantize import quantize_int8
from export.formats.recipes import DEFAULT_RECIPE, RECIPES
from runtimes.bundle.shape import SHAPE_KEY, cache_names
from runtimes.engine.cache import open_onnx
from slm.console.errors import SlmxError
from slm.model import GPT
from slm.presets import GPTConfig, get_preset
from tests import bundles
from tests.bundles import PARITY_LIMIT, onnx_parity
from tests.shapes import ARCHITECTURES

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
FloatArray = npt.NDArray[np.float32]
IdArray = npt.NDArray[np.int64]


@pytest.fixture(scope="module")
def nano() -> tuple[GPT, Path]:
    return bundles.nano_graph()


@pytest.fixture(scope="module")
def nano_int8(nano: tuple[GPT, Path]) -> Path:
    path = nano[1].with_name("model_int8.onnx")
    quantize_int8(nano[1], path, RECIPES[DEFAULT_RECIPE])
    return path


@pytest.fixture(params=["fp32", "int8"])
def nano_variant(request: pytest.FixtureRequest, nano: tuple[GPT, Path], nano_int8: Path) -> Path:
    return nano[1] if request.param == "fp32" else nano_int8


def test_inputs_and_outputs_are_the_contract(nano_variant: Path) -> None:
    session = open_onnx(nano_variant, 1)
    past: list[object] = ["batch_size", 4, "past_sequence_length", 32]
    present: list[object] = ["batch_size", 4, "total_sequence_length", 32]
    inputs: dict[str, tuple[str, list[object]]] = {
        "input_ids": ("tensor(int64)", ["batch_size", "sequence_length"]),
        "attention_mask": ("tensor(int64)", ["batch_size", "total_sequence_length"]),
        "position_ids": ("tensor(int64)", ["batch_size", "sequence_length"]),
    }
    outputs: dict[str, tuple[str, list[object]]] = {
        "logits": ("tensor(float)", ["batch_size", "sequence_length", 8000])
    }
    for layer in range(4):
        for part in ("key", "value"):
            inputs[f"past_key_values.{layer}.{part}"] = ("tensor(float)", past)
            outputs[f"present.{layer}.{part}"] = ("tensor(float)", present)
    assert {v.name: (v.type, v.shape) for v in session.get_inputs()} == inputs
    assert {v.name: (v.type, v.shape) for v in session.get_outputs()} == outputs
    assert [v.name for v in session.get_outputs()] == ["logits", *cache_names(4)[1]]


def test_the_file_is_hardly_larger_than_its_weights(nano: tuple[GPT, Path]) -> None:
    model, path = nano
    assert path.stat().st_size <= 1.03 * 4 * model.config.parameters
    assert [p.name for p in path.parent.iterdir() if p.suffix != ".onnx"] == []


def test_a_vocabulary_sized_table_is_stored_once(nano_variant: Path) -> None:
    sizes = [int(np.prod(tensor.dims)) for tensor in bundles.initializers(nano_variant).values()]
    assert sizes.count(8000 * 128) == 1
    assert sum(size >= 8000 for size in sizes) == 1 + 1 + 4 * 4  # that table, the positions, four matrices a layer


def test_every_weight_is_in_the_file_as_it_is_in_the_checkpoint(nano: tuple[GPT, Path]) -> None:
    model, path = nano
    stored = [numpy_helper.to_array(tensor) for tensor in bundles.initializers(path).values()]
    for name, parameter in model.named_parameters():
        value = parameter.detach().numpy()
        candidates = [array for array in stored if array.size == value.size]
        assert any(
            np.array_equal(array, form)
            for array in candidates
            for form in (value, value.T)
            if array.shape == form.shape
        ), name
    assert sum(array.size for array in stored if array.dtype == np.float32) == model.config.parameters


def test_the_checker_passes_and_versions_are_those_promised(nano_variant: Path) -> None:
    model = onnx.load(nano_variant)
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == IR_VERSION
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == OPSET
    used = {node.domain for node in model.graph.node}
    assert used == {"", "com.microsoft"}
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in model.graph.initializer)


def test_the_file_says_nothing_of_the_machine_it_was_made_on(nano_variant: Path) -> None:
    model = onnx.load(nano_variant)
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")
        tensor.ClearField("float_data")
    text = model.SerializeToString().decode("latin-1")
    machine = (str(ROOT), sys.prefix, str(Path.home()), tempfile.gettempdir(), "site-packages", ".py", "torch.nn")
    assert [word for word in machine if len(word) > 1 and word in text] == []
    assert f"/{getpass.getuser()}" not in text
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
    assert {entry.key for entry in model.metadata_props} <= {"onnx.infer", SHAPE_KEY}


def test_parity_covers_the_grid_and_the_full_context() -> None:
    grid = [(batch, new, past) for batch in (1, 3) for new in (1, 2, 17) for past in (0, 1, 30)]
    # After a filled cache, GroupQueryAttention takes several tokens for one sequence only.
    runnable = {(batch, new, past) for batch, new, past in grid if batch == 1 or new == 1 or past == 0}
    full = {(1, 256, 0), (1, 1, 255)}
    nano = get_preset("nano").config
    assert set(parity_cases(nano, chunked_batches=False)) == full | runnable
    assert set(parity_cases(nano, chunked_batches=True)) == full | set(grid)
    small = GPTConfig(block_size=4, vocab_size=260, n_layer=1, n_head=1, n_embd=8)
    assert all(new + past <= 4 for _, new, past in parity_cases(small, True))
    assert {(1, 4, 0), (1, 1, 3), (3, 1, 1)} <= set(parity_cases(small, True))


def test_parity_with_pytorch(nano: tuple[GPT, Path]) -> None:
    assert onnx_parity(*nano) <= PARITY_LIMIT


@pytest.mark.parametrize(
    "config",
    [
        GPTConfig(block_size=4, vocab_size=260, n_layer=1, n_head=1, n_embd=8),
        GPTConfig(block_size=40, vocab_size=301, n_layer=3, n_head=3, n_embd=48),
        *ARCHITECTURES.values(),
    ],
)
def test_parity_of_other_shapes(config: GPTConfig, tmp_path: Path) -> None:
    model = bundles.random_model(config)
    path = tmp_path / "model.onnx"
    export_onnx(model, path)
    assert onnx_parity(model, path) <= PARITY_LIMIT


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_large_weights_pass_and_errors_in_them_do_not(architecture: str, tmp_path: Path) -> None:
    """float32 computes the logits of such models with 3 digits, in PyTorch too."""
    model = bundles.random_model(ARCHITECTURES[architecture])
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_()
    path = tmp_path / "model.onnx"
    export_onnx(model, path)
    assert onnx_parity(model, path) <= PARITY_LIMIT
    forward = open_forward("fp32", path, model.config)

    def wrong(ids: torch.Tensor, past: list[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        logits, present = forward(ids, past)
        return logits * 1.1, present

    assert parity(model, wrong, chunked_batches=False) > PARITY_LIMIT


def test_exporting_changes_neither_the_model_nor_what_it_computes(tmp_path: Path) -> None:
    model = bundles.random_model(GPTConfig(block_size=8, vocab_size=260, n_layer=1, n_head=2, n_embd=8))
    ids = torch.arange(8)[None]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.inference_mode():
        before = model(ids)
    export_onnx(model, tmp_path / "model.onnx")
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    with torch.inference_mode():
        assert torch.equal(model(ids), before)


def spoil(source: Path, target: Path, name: str, value: float) -> None:
    """Copies a graph with a quarter of one tensor changed."""
    model = onnx.load(source)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    values = numpy_helper.to_array(tensor).copy()
    values.reshape(-1)[::4] += np.float32(value)
    tensor.CopyFrom(numpy_helper.from_array(values, name))
    onnx.save_model(model, target)


def is_caught(model: GPT, path: Path) -> bool:
    try:
        difference = onnx_parity(model, path)
    except SlmxError:
        return True
    return not difference <= PARITY_LIMIT


def float_tensors() -> list[str]:
    layer = [
        f"{name}.{part}"
        for name in ("ln_1", "c_attn", "attn_proj", "ln_2", "c_fc", "mlp_proj")
        for part in ("weight", "bias")
    ]
    return [TOKEN_TABLE, "wpe.weight", *(f"h.1.{name}" for name in layer), "ln_f.weight", "ln_f.bias"]


@pytest.mark.parametrize("name", float_tensors())
def test_a_planted_change_of_any_weight_is_caught(name: str, tmp_path: Path) -> None:
    model, path = bundles.small_graph()
    spoil(path, tmp_path / "spoilt.onnx", name, 0.01)
    assert is_caught(model, tmp_path / "spoilt.onnx")


def test_logits_that_are_no_numbers_are_caught(tmp_path: Path) -> None:
    model, path = bundles.small_graph()
    spoil(path, tmp_path / "spoilt.onnx", "ln_f.bias", float("nan"))
    assert is_caught(model, tmp_path / "spoilt.onnx")


def test_the_last_position_of_the_context_is_part_of_parity(tmp_path: Path) -> None:
    model, path = bundles.small_graph()
    spoilt = onnx.load(path)
    tensor = next(tensor for tensor in spoilt.graph.initializer if tensor.name == "wpe.weight")
    values = numpy_helper.to_array(tensor).copy()
    values[-1, ::2] += 0.1
    tensor.CopyFrom(numpy_helper.from_array(values, "wpe.weight"))
    onnx.save_model(spoilt, tmp_path / "spoilt.onnx")
    assert is_caught(model, tmp_path / "spoilt.onnx")


def test_rows_padded_on_the_right_differ_in_length_and_decode_together() -> None:
    model, path = bundles.small_graph()
    config, session = model.config, open_onnx(path, 1)
    past_names, present_names = cache_names(config.n_layer)
    lengths, longest = np.array([3, 7, 5]), 7
    rows = np.random.default_rng(0).integers(0, config.vocab_size, (3, longest + 2))
    shape = (3, config.n_head, config.block_size, config.head_dim)
    state = {name: np.zeros(shape, np.float32) for name in past_names}

    def run(ids: IdArray, positions: IdArray, filled: IdArray, total: int) -> FloatArray:
        mask = (np.arange(total) < filled[:, None]).astype(np.int64)
        feed = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        logits, *present = session.run(["logits", *present_names], feed | state)
        state.update(zip(past_names, present, strict=True))
        return np.asarray(logits, np.float32)

    results = [run(rows[:, :longest], np.tile(np.arange(longest), (3, 1)), lengths, longest)]
    for step in range(2):
        new = np.take_along_axis(rows, (lengths + step)[:, None], 1)
        results.append(run(new, (lengths + step)[:, None], lengths + step + 1, longest + step + 1))
    for row, length in enumerate(lengths):
        with torch.inference_mode():
            expected = model(torch.from_numpy(rows[row : row + 1, : length + 2]))[0].numpy()
        ours = np.concatenate([results[0][row, :length], results[1][row], results[2][row]])
        np.testing.assert_allclose(ours, expected, atol=PARITY_LIMIT)


def test_few_nodes_are_left_after_optimization(tmp_path: Path) -> None:
    layers, source = bundles.small_graph()[0].config.n_layer, bundles.small_graph()[1]
    # c_attn's bias is a separate node in float32 and part of the product in int8.
    assert optimized_nodes(source) == 9 * layers + 12
    quantize_int8(source, tmp_path / "int8.onnx", RECIPES[DEFAULT_RECIPE])
    assert optimized_nodes(tmp_path / "int8.onnx") == 8 * layers + 13
