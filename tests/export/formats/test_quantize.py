"""Dynamic int8: what each recipe stores. The embedding and the head use the same table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from export.formats.fused import export_onnx
from export.formats.graph import TOKEN_TABLE, UNTIED_TABLE, matrix_names
from export.formats.quantize import quantize_int8
from export.formats.recipes import DEFAULT_RECIPE, RECIPES, Int8Recipe, get_recipe
from runtimes.engine.cache import open_onnx
from runtimes.engine.session import Session
from slm.console.errors import SlmxError
from tests import bundles
from tests.shapes import ARCHITECTURES

pytestmark = pytest.mark.slow

NANO_INT8_BYTES = 2_300_000
Quantize = Callable[[Int8Recipe], Path]

every_recipe = pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))


@pytest.fixture(scope="module")
def quantized() -> Quantize:
    """The small graph in int8, made once for each recipe."""
    made: dict[str, Path] = {}
    home = bundles.folder("int8")

    def quantize(recipe: Int8Recipe) -> Path:
        if recipe.name not in made:
            made[recipe.name] = home / f"{recipe.name}.onnx"
            quantize_int8(bundles.small_graph()[1], made[recipe.name], recipe)
        return made[recipe.name]

    return quantize


def arrays(path: Path) -> dict[str, npt.NDArray[np.generic]]:
    return {name: numpy_helper.to_array(tensor) for name, tensor in bundles.initializers(path).items()}


def dequantized(stored: dict[str, npt.NDArray[np.generic]], name: str) -> npt.NDArray[np.float32]:
    """A matrix computed from its int8 values, zero points and scales. Per-channel scales belong to columns."""
    integers = stored[f"{name}_quantized"].astype(np.int32) - stored[f"{name}_zero_point"].astype(np.int32)
    return np.asarray(integers * stored[f"{name}_scale"].astype(np.float32), np.float32)


def matmul_inputs(path: Path, op: str) -> list[str]:
    graph = onnx.load(path).graph
    stored = {tensor.name for tensor in graph.initializer}
    return [node.input[1] for node in graph.node if node.op_type == op and node.input[1] in stored]


def test_with_one_scale_signed_weights_are_the_numbers_of_unsigned_ones(quantized: Quantize) -> None:
    unsigned, signed = (arrays(quantized(get_recipe(name))) for name in ("u8-tensor", "s8-tensor"))
    names = [name for name in unsigned if name.endswith(("_quantized", "_zero_point"))]
    assert len(names) > 4
    for name in names:
        assert np.array_equal(unsigned[name].astype(np.int32) - 128, signed[name].astype(np.int32)), name


def test_recipes_are_all_combinations_by_their_own_names() -> None:
    assert len(RECIPES) == 16
    assert get_recipe("s8-channel-7bit-float-table") == Int8Recipe(True, True, True, False)
    assert get_recipe("u8-channel") == Int8Recipe(False, True, False, True)
    assert get_recipe("s8-tensor-7bit") == Int8Recipe(True, False, True, True)
    assert get_recipe(DEFAULT_RECIPE) == Int8Recipe(False, False, False, True)


def test_an_unknown_recipe_lists_those_there_are() -> None:
    with pytest.raises(SlmxError) as caught:
        get_recipe("int3")
    assert str(caught.value) == f"unknown int8 recipe 'int3': choose one of {', '.join(RECIPES)}"


def test_a_graph_multiplies_by_the_matrices_and_the_table() -> None:
    model, source = bundles.small_graph()
    matrices = ("c_attn", "attn_proj", "c_fc", "mlp_proj")
    assert matmul_inputs(source, "MatMul") == matrix_names(model.config)
    assert matrix_names(model.config) == [
        *(f"h.{layer}.{name}.weight" for layer in range(2) for name in matrices),
        TOKEN_TABLE,
    ]


@every_recipe
def test_what_was_to_be_quantized_is_and_nothing_else(quantized: Quantize, recipe: Int8Recipe) -> None:
    model, source = bundles.small_graph()
    path, names = quantized(recipe), matrix_names(model.config)
    chosen = [name for name in names if recipe.table or name != TOKEN_TABLE]
    assert matmul_inputs(path, "MatMulInteger") == [f"{name}_quantized" for name in chosen]
    assert matmul_inputs(path, "MatMul") == ([] if recipe.table else [TOKEN_TABLE])
    before, after = arrays(source), arrays(path)
    assert not set(chosen) & set(after)
    for name in set(before) - set(chosen):
        np.testing.assert_array_equal(after[name], before[name])


@every_recipe
def test_weights_are_within_half_a_step_of_what_they_were(quantized: Quantize, recipe: Int8Recipe) -> None:
    model, source = bundles.small_graph()
    before, after = arrays(source), arrays(quantized(recipe))
    for name in matrix_names(model.config):
        if name == TOKEN_TABLE and not recipe.table:
            continue
        integers, scale = after[f"{name}_quantized"], after[f"{name}_scale"].astype(np.float32)
        assert integers.dtype == (np.int8 if recipe.signed else np.uint8)
        assert scale.shape == (before[name].shape[1:] if recipe.per_channel else ())
        limit = 64 if recipe.reduce_range else 128
        assert np.abs(integers.astype(np.int32) - (0 if recipe.signed else limit)).max() <= limit
        error = np.abs(dequantized(after, name) - before[name].astype(np.float32))
        assert (error <= 0.502 * scale).all()


@every_recipe
def test_the_embedding_is_the_column_of_the_stored_table(
    quantized: Quantize, recipe: Int8Recipe, tmp_path: Path
) -> None:
    path = quantized(recipe)
    source = onnx.load(bundles.small_graph()[1]).graph
    embedding = next(
        node.output[0] for node in source.node if node.op_type == "Gather" and node.input[0] == TOKEN_TABLE
    )
    model = onnx.load(path)
    model.graph.output.append(helper.make_tensor_value_info(embedding, TensorProto.FLOAT, None))
    onnx.save_model(model, tmp_path / "model.onnx")
    config = bundles.small_graph()[0].config
    ids = np.arange(config.vocab_size, dtype=np.int64)[None, -config.block_size :]
    empty = np.zeros((1, config.n_head, 0, config.head_dim), np.float32)
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "position_ids": np.arange(ids.size)[None]}
    session = open_onnx(tmp_path / "model.onnx", 1)
    feed |= {value.name: empty for value in session.get_inputs() if value.name.startswith("past")}
    (given,) = session.run([embedding], feed)
    stored = arrays(path)
    table = dequantized(stored, TOKEN_TABLE) if recipe.table else stored[TOKEN_TABLE].astype(np.float32)
    np.testing.assert_allclose(given.reshape(config.n_embd, -1), table[:, ids[0]], rtol=1e-6)


@every_recipe
def test_every_recipe_runs_and_stays_close_to_float(quantized: Quantize, recipe: Int8Recipe) -> None:
    model, source = bundles.small_graph()
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, model.config.block_size)
    exact = Session.open(source, model.config).score(ids)
    session = Session.open(quantized(recipe), model.config)
    prefilled = session.score(ids)
    session.rewind(0)
    stepped = np.stack([session.step(int(i)).copy() for i in ids])
    for logits in (prefilled, stepped):
        assert np.abs(logits - exact).mean() <= 0.1 * np.abs(exact).mean()


@every_recipe
def test_the_table_is_stored_once(quantized: Quantize, recipe: Int8Recipe) -> None:
    config = bundles.small_graph()[0].config
    tables = [value for value in arrays(quantized(recipe)).values() if value.size == config.vocab_size * config.n_embd]
    assert [table.itemsize for table in tables] == [1 if recipe.table else 4]
    onnx.checker.check_model(onnx.load(quantized(recipe)))


@pytest.mark.parametrize("name", ["h.1.c_fc.weight", TOKEN_TABLE])
def test_one_matrix_alone(name: str, tmp_path: Path) -> None:
    model, source = bundles.small_graph()
    path = tmp_path / "model.onnx"
    quantize_int8(source, path, RECIPES[DEFAULT_RECIPE], only={name})
    assert matmul_inputs(path, "MatMulInteger") == [f"{name}_quantized"]
    assert matmul_inputs(path, "MatMul") == [other for other in matrix_names(model.config) if other != name]
    Session.open(path, bundles.small_graph()[0].config).prefill([1, 2, 3])


def test_the_source_is_left_as_it_was(quantized: Quantize) -> None:
    source = bundles.small_graph()[1]
    before = bundles.snapshot(source.parent)
    quantized(RECIPES[DEFAULT_RECIPE])
    assert bundles.snapshot(source.parent) == before


@pytest.mark.parametrize("kept", [0, 5000])
def test_a_disk_that_fills_up_under_the_quantizer_is_one_line(
    kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(source: str, target: str) -> None:
        Path(target).write_bytes(Path(source).read_bytes()[:kept])

    monkeypatch.setattr(onnx.shape_inference, "infer_shapes_path", cut)
    source = tmp_path / "source.onnx"
    source.write_bytes(bundles.small_graph()[1].read_bytes())
    with pytest.raises(SlmxError, match="the disk is probably full; make room"):
        quantize_int8(source, tmp_path / "model.onnx", RECIPES[DEFAULT_RECIPE])


def test_nano_in_int8_is_small(tmp_path: Path) -> None:
    quantize_int8(bundles.nano_graph()[1], tmp_path / "model.onnx", RECIPES[DEFAULT_RECIPE])
    assert (tmp_path / "model.onnx").stat().st_size <= NANO_INT8_BYTES


def test_an_untied_embedding_is_int8_with_the_smallest_scale_for_each_row(tmp_path: Path) -> None:
    model = bundles.random_model(ARCHITECTURES["llama with grouped heads"])
    with torch.no_grad():
        model.wte.weight[7] = 0.0
        model.wte.weight[8] *= 1000.0
    export_onnx(model, tmp_path / "fp32.onnx")
    quantize_int8(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", RECIPES[DEFAULT_RECIPE])
    stored = {
        name: numpy_helper.to_array(tensor) for name, tensor in bundles.initializers(tmp_path / "int8.onnx").items()
    }
    rows, scale = stored[f"{UNTIED_TABLE}_quantized"], stored[f"{UNTIED_TABLE}_scale"]
    table = model.wte.weight.detach().numpy()
    assert rows.dtype == np.int8
    assert UNTIED_TABLE not in stored
    assert (np.abs(rows * scale - table) <= np.abs(table).max(axis=1, keepdims=True) / 254 * 1.001).all()
    assert (np.abs(rows).max(axis=1) == np.where(np.arange(len(rows)) == 7, 0, 127)).all()
